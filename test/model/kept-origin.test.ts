import { prepareQuickTests } from '../support/quick.ts';
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
import { KeptOrigin } from '../../src/origin/kept-origin.ts';
import type { DatabaseSnapshot } from '../../src/origin/snapshot.ts';
import { KEYED_HASH_BYTES, createPageHasher } from '../../src/pages/hash.ts';
import { pageNumber } from '../../src/pages/page-types.ts';
import { tempDir } from '../support/compare.ts';
import { untilAll } from '../support/until-all.ts';

prepareQuickTests({ after });

/** Repeat a failure with `SQLSYNC_SEED=… npm test`; SQLSYNC_SNAPSHOTS is how often it looks. */
const SEED = Number(process.env['SQLSYNC_SEED'] ?? Date.now() % 2 ** 31);
const LOOKS = Number(process.env['SQLSYNC_SNAPSHOTS'] ?? 100);
const WRITER = fileURLToPath(new URL('../support/hostile-writer.ts', import.meta.url));
const WRITERS = 3;
/** Writers want to leave WAL mode now and then, and cannot while the connection is open. */
const IDLE_MS = 60;

interface Seen {
  readonly pageSize: number;
  /** Of all pages. */
  readonly hashes: Buffer;
}

/** What came of all looks. */
interface Counts {
  looks: number;
  known: number;
  unknown: number;
  changed: number;
  named: number;
}

for (const writers of [1, WRITERS]) {
  test(`no page changes between two snapshots of a kept origin unnamed, beside hostile writers: ${writers}`, async (t) => {
    t.diagnostic(`SQLSYNC_SEED=${SEED}`);
    const random = new Random(SEED);
    const path = join(tempDir(t), 'origin.db');
    generateDatabase(path, { rows: 2000, pageSize: 1024 });
    const children = await Promise.all(Array.from({ length: writers }, () => startWriter(path, random)));
    t.after(() => children.forEach((child) => child.kill('SIGKILL')));
    const kept = new KeptOrigin(IDLE_MS);
    t.after(() => kept.close());
    const counts: Counts = { looks: 0, known: 0, unknown: 0, changed: 0, named: 0 };
    let last: Seen | undefined;
    for (const _ of untilAll(LOOKS, counts, ['known', 'changed'])) {
      if (random.chance(0.1)) {
        const i = random.integer(0, writers - 1);
        children[i]?.kill('SIGKILL');
        children[i] = await startWriter(path, random);
      }
      for (let looks = random.integer(0, 4); looks > 0; looks--) {
        await delay(random.integer(0, 15));
        if (!kept.hasChanged()) await kept.detachIfIdle();
      }
      last = await look(kept, path, last, counts);
    }
    t.diagnostic(JSON.stringify(counts));
  });
}

async function startWriter(path: string, random: Random): Promise<ChildProcess> {
  const writer = fork(WRITER, [path, String(random.integer(1, 2 ** 30))], { stdio: 'inherit' });
  await once(writer, 'message');
  return writer;
}

/** Takes the next snapshot; every page that differs from the last one has to be among those that it names. */
async function look(
  kept: KeptOrigin,
  path: string,
  last: Seen | undefined,
  counts: Counts,
): Promise<Seen | undefined> {
  let snapshot: DatabaseSnapshot;
  try {
    snapshot = await kept.open(path, { busyTimeoutMs: 50 });
  } catch (error) {
    assert.match(String((error as { code?: string }).code), /^(?:BUSY|ORIGIN_)/, String(error));
    return undefined;
  }
  try {
    const now = { pageSize: snapshot.pageSize, hashes: hashesOf(snapshot) };
    counts.looks++;
    if (last === undefined || last.pageSize !== now.pageSize) return now;
    const { changes } = kept;
    counts[changes === undefined ? 'unknown' : 'known']++;
    if (changes !== undefined) assertNamed(last.hashes, now.hashes, changes, counts);
    return now;
  } finally {
    snapshot.close();
  }
}

function hashesOf(snapshot: DatabaseSnapshot): Buffer {
  const { pageSize, pageCount } = snapshot;
  const hasher = createPageHasher('nh-siphash', Buffer.alloc(16, 7), pageSize);
  const hashes = Buffer.alloc(pageCount * KEYED_HASH_BYTES);
  for (let page = 1; page <= pageCount; page++)
    hasher.hashPage(
      pageNumber(page),
      snapshot.readPage(pageNumber(page)),
      hashes,
      (page - 1) * KEYED_HASH_BYTES,
    );
  return hashes;
}

function assertNamed(
  last: Buffer,
  now: Buffer,
  changes: NonNullable<KeptOrigin['changes']>,
  counts: Counts,
): void {
  counts.named += changes.pages.size;
  for (let at = 0; at < Math.min(last.length, now.length); at += KEYED_HASH_BYTES) {
    if (last.compare(now, at, at + KEYED_HASH_BYTES, at, at + KEYED_HASH_BYTES) === 0) continue;
    const page = at / KEYED_HASH_BYTES + 1;
    counts.changed++;
    assert.ok(
      changes.pages.has(page) || page > changes.leastPages,
      `page ${page} changed, and was not named`,
    );
  }
}
