import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { TestContext } from 'node:test';
import { FAULT_GROUPS } from './groups.ts';

const seed = Number(process.env['SQLSYNC_FAULT_SEED'] ?? Math.floor(Math.random() * 2 ** 32));

/** The short run of a group as a test. */
export function testShortRun(group: string, name: string): void {
  test(`${name} (SQLSYNC_FAULT_SEED=${seed})`, async (t: TestContext) => {
    const run = FAULT_GROUPS[group];
    assert.ok(run !== undefined, `there is no group ${group}`);
    const broken: string[] = [];
    for await (const row of run({ seed, long: false })) {
      broken.push(...row.broken);
      t.diagnostic(`${row.fault}: ${JSON.stringify(row.outcomes)}`);
    }
    assert.deepEqual(broken, []);
  });
}
