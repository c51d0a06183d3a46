import assert from 'node:assert/strict';
import { test } from 'node:test';
import { followHistory, ROUTES, WRITERS } from '../follow/history.ts';

/** Repeat a failure with `SQLSYNC_SEED=… npm test`; SQLSYNC_RUNS is how many histories there are. */
const SEED = Number(process.env['SQLSYNC_SEED'] ?? Date.now() % 2 ** 31);
const RUNS = Number(process.env['SQLSYNC_RUNS'] ?? 3);
const ACTIONS = 60;

for (const writer of WRITERS) {
  test(`a reader of a replica that follows sees one state of the origin after another, and in the end the last (${writer})`, async (t) => {
    for (let run = 0; run < RUNS; run++) {
      const seed = SEED + run;
      const route = ROUTES[run % ROUTES.length] ?? 'local';
      t.diagnostic(`SQLSYNC_SEED=${seed} ${route}`);
      assert.match(await followHistory(t, { seed, route, writer, actions: ACTIONS }), /^followed/);
    }
  });
}
