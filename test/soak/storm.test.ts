import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Storm } from './storm/storm.ts';

/** `npm run soak` lets it rage for minutes. */
const DURATION_MS = process.env['SQLSYNC_SLOW_TESTS'] === '1' ? 60_000 : 5000;

const seed = Number(process.env['SQLSYNC_FAULT_SEED'] ?? Math.floor(Math.random() * 2 ** 32));

test(
  `syncs, a chain of replicas, backups, forget, prune and restores at once, with kills and stops, keep to the states of ` +
    `the origin (SQLSYNC_FAULT_SEED=${seed})`,
  { timeout: 600_000 },
  async () => {
    const storm = new Storm({ seed, cells: 500 });
    try {
      await storm.run(DURATION_MS);
      assert.deepEqual(storm.broken, []);
    } finally {
      await storm.end();
    }
  },
);
