import assert from 'node:assert/strict';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import type { TestContext } from 'node:test';
import { change, column, smallDatabase } from '../pages/databases.ts';
import { tempDir } from '../support/compare.ts';
import { sqlsync, summaryOf } from './command.ts';
import type { Summary } from './command.ts';

/** Loaded before the program: its clock then shows `SQLSYNC_TEST_NOW` where it began. */
const CLOCK = `data:text/javascript,${encodeURIComponent(`
  const Real = Date;
  const shift = Real.parse(process.env.SQLSYNC_TEST_NOW) - Real.now();
  globalThis.Date = class extends Real {
    constructor(...given) { if (given.length > 0) super(...given); else super(Real.now() + shift); }
    static now() { return Real.now() + shift; }
  };`)}`;

interface Clocked {
  readonly folder: string;
  /** Backs up a.db, where table t now says `content`, while the clock shows `now`. */
  readonly backUp: (now: string, content: string, ...options: string[]) => Promise<Summary>;
  /** The content of table t in the database that the command restores. */
  readonly restored: (which: string) => Promise<{ content: unknown; stderr: string }>;
}

async function clocked(t: TestContext, zone: string): Promise<Clocked> {
  const folder = tempDir(t);
  const origin = join(folder, 'a.db');
  smallDatabase(origin, { rows: 20 });
  change(origin, 'CREATE TABLE t (x); INSERT INTO t VALUES (NULL)');
  const env = { TZ: zone };
  await summaryOf(['init', 'store'], { cwd: folder });
  let restores = 0;
  return {
    folder,
    backUp(now, content, ...options) {
      change(origin, `UPDATE t SET x = '${content}'`);
      const shifted = { ...env, NODE_OPTIONS: `--import=${CLOCK}`, SQLSYNC_TEST_NOW: now };
      return summaryOf(['backup', 'a.db', 'store', ...options], { cwd: folder, env: shifted });
    },
    async restored(which) {
      const target = `r${restores++}.db`;
      const { status, stderr } = await sqlsync(['restore', `store${which}`, target], { cwd: folder, env });
      assert.equal(status, 0, stderr);
      return { content: column(join(folder, target), 'SELECT x FROM t')[0], stderr };
    },
  };
}

describe('a store under clocks', () => {
  test('under wrong clocks the newest snapshot is the one that was made last, and a command says so', async (t) => {
    const { folder, backUp, restored } = await clocked(t, 'UTC');
    await backUp('2025-11-20T10:00:00Z', 'first');
    await backUp('2062-01-01T10:00:00Z', 'ahead');
    await backUp('2025-11-22T10:00:00Z', 'third');
    const last = await backUp('2025-11-23T10:00:00Z', 'last');
    const { parent } = (last['backups'] as { snapshot: { parent: string } }[])[0]?.snapshot ?? {};
    const { snapshots, misdated } = await summaryOf(['snapshots', 'store'], { cwd: folder });
    const listed = snapshots as { id: string; time: string }[];
    assert.deepEqual(
      listed.map(({ time }) => time.slice(0, 10)),
      ['2025-11-20', '2062-01-01', '2025-11-22', '2025-11-23'],
    );
    assert.equal(parent, listed[2]?.id);
    assert.deepEqual(misdated, [{ id: listed[1]?.id, doubt: 'future' }]);
    for (const [which, content] of [
      ['', 'last'],
      ['#latest', 'last'],
      ['#2025-11-22', 'third'],
      ['#2025-11-21', 'first'],
      [`#${listed[1]?.id}`, 'ahead'],
    ] as const) {
      const found = await restored(which);
      assert.equal(found.content, content, which);
      const isTold = /warning: Snapshot \w{8} \(2062-.*was made before it/.test(found.stderr);
      assert.equal(isTold, which === '' || which === '#latest', which);
    }
    const dumped = await sqlsync(['dump', 'store', 't'], { cwd: folder });
    assert.match(dumped.stdout, /'last'/);
    const { b } = await summaryOf(['diff', `store#${listed[0]?.id}`, '#latest'], { cwd: folder });
    assert.equal((b as { id: string }).id, listed[3]?.id);
    const { stdout } = await sqlsync(['snapshots', 'store'], { cwd: folder, env: { TZ: 'Asia/Kolkata' } });
    assert.match(stdout, /2062-01-01 15:30:0\d\+05:30 .* time in the future\n/);
    assert.match(stdout, /The times of 1 of them are wrong/);
  });

  test('under a slow clock a new snapshot is no older, and gives up no place to an older one', async (t) => {
    const { backUp, restored } = await clocked(t, 'UTC');
    await backUp('2025-11-20T10:00:00Z', 'first');
    await backUp('1990-01-01T10:00:00Z', 'behind', '--keep-last', '1');
    assert.equal((await restored('')).content, 'behind');
    await backUp('2025-11-22T10:00:00Z', 'third', '--keep-last', '1');
    assert.equal((await restored('')).content, 'third');
  });

  test('in zones where midnight is skipped or an hour comes twice, a day and a time mean what the clock showed', async (t) => {
    const { folder, backUp, restored } = await clocked(t, 'America/Santiago');
    await backUp('2025-09-07T12:00:00-03:00', 'of the 7th');
    await backUp('2025-09-08T00:30:00-03:00', 'of the 8th');
    assert.equal((await restored('#2025-09-07')).content, 'of the 7th');
    assert.equal((await restored('#2025-09-08')).content, 'of the 8th');
    const { stdout } = await sqlsync(['snapshots', 'store'], {
      cwd: folder,
      env: { TZ: 'America/Santiago' },
    });
    const [, shown] = /(2025-09-07 12:00:\d\d-03:00)/.exec(stdout) ?? [];
    assert.ok(shown, stdout);
    // Every time in the list can be given to the command.
    assert.equal((await restored(`#${shown}`)).content, 'of the 7th');
    const twice = await clocked(t, 'America/New_York');
    await twice.backUp('2025-11-02T01:10:00-04:00', 'first 1:10');
    await twice.backUp('2025-11-02T01:50:00-04:00', 'first 1:50');
    await twice.backUp('2025-11-02T01:10:00-05:00', 'second 1:10');
    await twice.backUp('2025-11-02T01:50:00-05:00', 'second 1:50');
    assert.equal((await twice.restored('#2025-11-02T01:30')).content, 'second 1:10');
    assert.equal((await twice.restored('#2025-11-02T01:30-04:00')).content, 'first 1:10');
    assert.equal((await twice.restored('#2025-11-02T01:59')).content, 'second 1:50');
  });
});
