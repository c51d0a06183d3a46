import { noQuickCheck, prepareQuickTests } from '../support/quick.ts';
import assert from 'node:assert/strict';
import type { ChildProcess } from 'node:child_process';
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { generateDatabase } from '../../fixtures/generate.ts';
import { Random } from '../../fixtures/random.ts';
import { KEYED_HASH_BYTES, createPageHasher } from '../../src/pages/hash.ts';
import { lockBytePage, pageNumber } from '../../src/pages/page-types.ts';
import type { WalLook } from '../../src/pages/wal-changes.ts';
import { tempDir } from '../support/compare.ts';
import { untilAll } from '../support/until-all.ts';

prepareQuickTests({ after });
// The writers checkpoint all the time, and a clock of Linux ticks every 10 ms at most.
process.env['SQLSYNC_STAMP_MIN_AGE_MS'] = '12';
const { ReadTransaction } = await import('../../src/pages/read-transaction.ts');

/** Repeat a failure with `SQLSYNC_SEED=… npm test`; SQLSYNC_SNAPSHOTS is how often it looks. */
const SEED = Number(process.env['SQLSYNC_SEED'] ?? Date.now() % 2 ** 31);
const LOOKS = Number(process.env['SQLSYNC_SNAPSHOTS'] ?? 100);
const WRITER = fileURLToPath(new URL('../support/hostile-writer.ts', import.meta.url));
const WRITERS = 3;
/** Earlier snapshots that each new one is compared with. */
const KEPT = 12;

interface Seen {
  readonly look: WalLook;
  readonly pageSize: number;
  readonly pageCount: number;
  /** Of all pages, as SQLite reads them. */
  readonly hashes: Buffer;
}

test(
  'no page changes beside hostile writers that the frames of the WAL do not name',
  { skip: noQuickCheck() ?? false },
  async (t) => {
    t.diagnostic(`SQLSYNC_SEED=${SEED}`);
    const random = new Random(SEED);
    const path = join(tempDir(t), 'origin.db');
    generateDatabase(path, { rows: 2000, pageSize: 1024 });
    const writers = await Promise.all(Array.from({ length: WRITERS }, () => startWriter(path, random)));
    t.after(() => writers.forEach((writer) => writer.kill('SIGKILL')));
    const counts = { looks: 0, known: 0, unknown: 0, pages: 0, changed: 0 };
    let earlier: Seen[] = [];
    for (const _ of untilAll(LOOKS, counts, ['known', 'changed'])) {
      if (random.chance(0.1)) {
        const i = random.integer(0, WRITERS - 1);
        writers[i]?.kill('SIGKILL');
        writers[i] = await startWriter(path, random);
      }
      const seen = await look(path, earlier, counts).catch(refused);
      if (seen !== undefined) earlier = [...earlier.slice(1 - KEPT), seen];
      await delay(random.integer(0, 30));
    }
    t.diagnostic(JSON.stringify(counts));
  },
);

async function startWriter(path: string, random: Random): Promise<ChildProcess> {
  const writer = fork(WRITER, [path, String(random.integer(1, 2 ** 30))], { stdio: 'inherit' });
  await once(writer, 'message');
  return writer;
}

/** Takes a snapshot, and compares all pages with those of earlier ones, as far as the WAL claims to know what changed. */
async function look(
  path: string,
  earlier: readonly Seen[],
  counts: Record<string, number>,
): Promise<Seen | undefined> {
  const database = {
    path,
    name: path,
    guard: <T>(read: () => T): T => read(),
    replaced: () => new Error('replaced'),
  };
  const transaction = await ReadTransaction.open(database, { busyTimeoutMs: 50 });
  try {
    const { look: now, pageSize, pageCount } = transaction;
    const known = earlier
      .filter((seen) => seen.pageSize === pageSize)
      .map((seen) => ({ seen, changed: transaction.changedSince(seen.look) }));
    const hasher = createPageHasher('nh-siphash', Buffer.alloc(16, 7), pageSize);
    const hashes = Buffer.alloc(pageCount * KEYED_HASH_BYTES);
    for (let page = 1; page <= pageCount; page++) {
      if (page === lockBytePage(pageSize)) continue;
      const bytes = transaction.reader.readPage(page);
      hasher.hashPage(pageNumber(page), bytes, hashes, (page - 1) * KEYED_HASH_BYTES);
    }
    const count = (name: string, by = 1): unknown => (counts[name] = (counts[name] ?? 0) + by);
    count('looks');
    for (const { seen, changed } of known) {
      count(changed === undefined ? 'unknown' : 'known');
      if (changed === undefined) continue;
      const named = new Set(changed);
      const end = Math.min(pageCount, seen.pageCount);
      for (let page = 1; page <= end; page++) {
        const at = (page - 1) * KEYED_HASH_BYTES;
        const isSame =
          hashes.compare(seen.hashes, at, at + KEYED_HASH_BYTES, at, at + KEYED_HASH_BYTES) === 0;
        count('pages');
        if (!isSame) count('changed');
        assert.ok(
          isSame || named.has(page),
          `page ${page} changed between ${JSON.stringify([seen.look, now])}`,
        );
      }
    }
    return now && { look: now, pageSize, pageCount, hashes };
  } finally {
    transaction.close();
    transaction.closeFile();
  }
}

function refused(error: unknown): undefined {
  const { code } = error as { code?: string };
  if (error instanceof assert.AssertionError) throw error;
  assert.match(
    code ?? '',
    /^(?:SQLITE_(?:BUSY|CANTOPEN|IOERR|READONLY|PROTOCOL|LOCKED)|BUSY)/,
    String(error),
  );
}
