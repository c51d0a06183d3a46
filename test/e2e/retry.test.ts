import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, existsSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { after, describe, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { runSync } from '../../src/sync/runs/sync.ts';
import type { SyncOptions, SyncSummary } from '../../src/sync/runs/sync.ts';
import { CLI } from '../support/relay-kill.ts';
import type { Pair } from '../support/relay-near.ts';
import type { SyncHereResult } from '../support/sync.ts';
import { syncHere } from '../support/sync.ts';
import { REPLICA_KINDS, Scenario } from '../support/relay-scenario.ts';

const LINK = fileURLToPath(new URL('../support/broken-link-child.ts', import.meta.url));

const folder = mkdtempSync(join(tmpdir(), 'sqlsync-retry-'));
after(() => rmSync(folder, { recursive: true }));
const scenario = await Scenario.make(folder, { blobs: 2600, pageSize: 4096 });
process.env['NODE_COMPILE_CACHE'] = join(folder, 'compile-cache');

let links = 0;

/**
 * A remote shell that runs the agent here; each of the first connections carries only so many bytes, one way,
 * and then breaks. `calls` is the number of its starts.
 */
function brokenLink(
  way: 'pull' | 'push',
  connections: number,
  bytes: number,
): { rsh: string; calls: () => number } {
  const script = join(folder, `link-${++links}`);
  const log = `${script}.log`;
  writeFileSync(
    script,
    `#!/bin/sh\nexec '${process.execPath}' '${LINK}' '${log}' ${way} ${connections} ${bytes}\n`,
  );
  chmodSync(script, 0o755);
  return { rsh: script, calls: () => readFileSync(log, 'utf8').split('\n').length - 1 };
}

function locations(way: 'pull' | 'push', pair: Pair): { origin: string; replica: string } {
  return way === 'pull'
    ? { origin: `host:${pair.origin}`, replica: pair.replica }
    : { origin: pair.origin, replica: `host:${pair.replica}` };
}

let all: Promise<SyncHereResult> | undefined;

/** Pages that a sync of a replica transfers if nothing breaks. */
async function pagesOfAll(): Promise<number> {
  all ??= syncHere({ ...scenario.pair('wal'), compression: 'none' });
  return (await all).pagesTransferred;
}

async function sync(options: SyncOptions): Promise<{ summary: SyncSummary; warnings: string[] }> {
  const warnings: string[] = [];
  const summary = await runSync({
    compress: 'none',
    idleTimeoutMs: 60_000,
    ...options,
    onWarning: (warning) => warnings.push(warning),
  });
  return { summary, warnings };
}

describe('--retry', () => {
  for (const way of ['pull', 'push'] as const) {
    for (const kind of REPLICA_KINDS) {
      test(`--retry carries a ${way} of a ${kind} replica over a link that breaks twice, and no page twice`, async () => {
        const pair = scenario.pair(kind);
        const link = brokenLink(way, 2, 3_000_000);
        const { summary, warnings } = await sync({ ...locations(way, pair), rsh: link.rsh, retries: 5 });
        assert.deepEqual([summary.attempts, summary.resumed, link.calls()], [3, true, 3]);
        assert.ok(
          warnings.some((text) => /CONNECTION_LOST.*attempt 2 of 6 follows in \d\.\d s/.test(text)),
          warnings.join(),
        );
        // The batches of the first two attempts did not come again.
        assert.ok(summary.pagesTransferred < (await pagesOfAll()) * 0.75, String(summary.pagesTransferred));
        assert.equal(scenario.state(kind, pair), 'new');
        assert.equal(existsSync(spoolOf(pair)), false);
      });
    }
  }

  test('--retry gives up after so many attempts, and keeps what has arrived', async () => {
    const pair = scenario.pair('wal');
    const link = brokenLink('pull', 9, 3_000_000);
    await assert.rejects(sync({ ...locations('pull', pair), rsh: link.rsh, retries: 1 }), {
      code: 'CONNECTION_LOST',
    });
    assert.equal(link.calls(), 2);
    assert.equal(scenario.state('wal', pair), 'old');
    assert.ok(existsSync(spoolOf(pair)));
  });

  for (const [says, code] of [
    ['deploy@host: Permission denied (publickey,password).', 'AUTH_FAILED'],
    ['no such tunnel', 'CONNECT_FAILED'],
  ] as const) {
    test(`--retry does not repeat a remote shell that never worked and says "${says}": ${code}`, async () => {
      const script = join(folder, `link-${++links}`);
      const text = `#!/bin/sh\necho >> '${script}.log'\necho '${says}' >&2\nexit 255\n`;
      writeFileSync(script, text, { mode: 0o755 });
      const run = sync({ ...locations('pull', scenario.pair('wal')), rsh: script, retries: 3 });
      await assert.rejects(run, { code });
      assert.equal(readFileSync(`${script}.log`, 'utf8'), '\n');
    });
  }

  test('a sync without --retry makes one attempt', async () => {
    const pair = scenario.pair('wal');
    const link = brokenLink('pull', 9, 100_000);
    await assert.rejects(sync({ ...locations('pull', pair), rsh: link.rsh }), { code: 'CONNECTION_LOST' });
    assert.equal(link.calls(), 1);
  });
});

describe('--max-snapshot', () => {
  for (const way of ['pull', 'push'] as const) {
    test(`--max-snapshot makes a ${way} over a slow link in rounds, and none of them holds the origin for longer`, async () => {
      const pair = scenario.pair('wal');
      const { summary } = await sync({
        ...locations(way, pair),
        rsh: brokenLink(way, 0, 0).rsh,
        bandwidthBytesPerS: 4_000_000,
        maxSnapshotMs: 1200,
      });
      assert.ok(summary.rounds >= 2, `${summary.rounds} rounds`);
      assert.deepEqual([summary.attempts, summary.resumed], [1, false]);
      assert.ok(summary.pagesTransferred <= (await pagesOfAll()) + summary.rounds);
      assert.equal(scenario.state('wal', pair), 'new');
      assert.equal(existsSync(spoolOf(pair)), false);
    });
  }
});

describe('kill -9', () => {
  for (const kind of ['wal', 'rollback'] as const) {
    for (const way of ['pull', 'push'] as const) {
      test(`kill -9 of the side that writes a ${kind} replica (${way}) loses nothing of what has arrived`, async () => {
        const pair = scenario.pair(kind);
        const pidFile = join(folder, `pid-${++links}`);
        const script = join(folder, `link-${links}`);
        writeFileSync(
          script,
          `#!/bin/sh\necho $$ > '${pidFile}'\nexec '${process.execPath}' '${CLI}' agent\n`,
        );
        chmodSync(script, 0o755);
        const { origin, replica } = locations(way, pair);
        const child = spawn(
          process.execPath,
          [CLI, origin, replica, '--rsh', script, '--compress', 'none', '--bwlimit', '6m', '-q'],
          { stdio: 'ignore' },
        );
        const ended = once(child, 'exit');
        while ((statSync(spoolOf(pair), { throwIfNoEntry: false })?.size ?? 0) < 2_000_000) await delay(5);
        process.kill(
          way === 'pull' ? (child.pid as number) : Number(readFileSync(pidFile, 'utf8')),
          'SIGKILL',
        );
        await ended;
        assert.equal(scenario.state(kind, pair), 'old');
        const { summary } = await sync({ ...locations(way, pair), rsh: script });
        assert.equal(summary.resumed, true);
        assert.equal(scenario.state(kind, pair), 'new');
      });
    }
  }
});

function spoolOf({ replica }: Pair): string {
  return join(dirname(replica), '.replica.db.sqlsync-spool');
}
