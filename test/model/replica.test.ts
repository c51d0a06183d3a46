import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { readdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import Database from 'better-sqlite3';
import fc from 'fast-check';
import type { GenerateOptions } from '../../fixtures/generate.ts';
import { AUTO_VACUUM_MODES, ENCODINGS, generateDatabase, PAGE_SIZES } from '../../fixtures/generate.ts';
import type { HistoryStep } from '../../fixtures/history.ts';
import { applyStep } from '../../fixtures/history.ts';
import { Random } from '../../fixtures/random.ts';
import { SqlsyncError } from '../../src/errors.ts';
import { assertReplicaOf, maskedPages, pageImage, tempDir } from '../support/compare.ts';
import { historyArbitrary, historyStepArbitrary } from '../support/history-arbitrary.ts';
import type { OtherConnection } from '../support/other-process.ts';
import { OtherProcess } from '../support/other-process.ts';
import { change, syncHere } from '../support/sync.ts';
import { untilAll } from '../support/until-all.ts';

/** Repeat a failure with `SQLSYNC_SEED=… npm test`, more cases with SQLSYNC_RUNS. */
const SEED = Number(process.env['SQLSYNC_SEED'] ?? Date.now() % 2 ** 31);
const RUNS = Number(process.env['SQLSYNC_RUNS'] ?? 40);

type Earlier =
  | { kind: 'none' }
  | { kind: 'snapshot'; journalMode: 'wal' | 'delete' }
  | { kind: 'foreign'; options: GenerateOptions }
  | { kind: 'part'; bytes: number; garbage: number }
  | { kind: 'cut'; journalMode: 'wal' | 'delete'; frames: number };

const generateArbitrary: fc.Arbitrary<GenerateOptions> = fc.record({
  seed: fc.nat(),
  encoding: fc.constantFrom(...ENCODINGS),
  autoVacuum: fc.constantFrom(...AUTO_VACUUM_MODES),
  journalMode: fc.constantFrom('wal', 'delete'),
  reservedBytes: fc.constantFrom(0, 8, 32),
  rows: fc.integer({ min: 1, max: 150 }),
});

const earlierArbitrary: fc.Arbitrary<Earlier> = fc.oneof(
  fc.record({ kind: fc.constant('none' as const) }),
  fc.record({
    kind: fc.constant('snapshot' as const),
    journalMode: fc.constantFrom('wal' as const, 'delete' as const),
  }),
  fc.record({ kind: fc.constant('foreign' as const), options: generateArbitrary }),
  fc.record({
    kind: fc.constant('part' as const),
    bytes: fc.integer({ min: 1, max: 1_000_000 }),
    garbage: fc.nat(),
  }),
  fc.record({
    kind: fc.constant('cut' as const),
    journalMode: fc.constantFrom('wal' as const, 'delete' as const),
    frames: fc.integer({ min: 1, max: 14 }),
  }),
);

interface Scenario {
  pageSize: number;
  base: GenerateOptions;
  before: HistoryStep[];
  earlier: Earlier;
  after: HistoryStep[];
}

const scenarioArbitrary: fc.Arbitrary<Scenario> = fc.record({
  // Small pages give many of them, so a tree of more than one level.
  pageSize: fc.constantFrom(...PAGE_SIZES, 512, 512, 1024),
  base: generateArbitrary,
  before: historyArbitrary(6),
  earlier: earlierArbitrary,
  after: historyArbitrary(8),
});

test('any history of the origin over any earlier replica makes a page-identical replica', async (t) => {
  const folder = tempDir(t);
  const other = new OtherProcess(t);
  const seen: Record<Earlier['kind'], number> = { none: 0, snapshot: 0, foreign: 0, part: 0, cut: 0 };
  await check(
    t,
    fc.asyncProperty(scenarioArbitrary, async (scenario) => {
      const [origin, replica] = emptied(folder);
      generateDatabase(origin, { ...scenario.base, pageSize: scenario.pageSize });
      // The connection stays open, so that the WAL has frames that were not checkpointed.
      const writer = await openWriter(other, origin);
      await applySteps(writer, scenario.before);
      await makeEarlier(scenario, origin, replica);
      await applySteps(writer, scenario.after);
      await syncHere({ origin, replica, overwrite: true });
      assertReplicaOf(origin, replica);
      assert.deepEqual(leftovers(folder), [], 'files of the sync are left');
      await writer.call('close');
      seen[scenario.earlier.kind]++;
    }),
    RUNS,
    seen,
  );
});

test('a writer that commits at every message of a sync leaves a replica of exactly one of its commits', async (t) => {
  const folder = tempDir(t);
  const other = new OtherProcess(t);
  const scenario = fc.record({
    pageSize: fc.constantFrom(512, 1024, 4096),
    base: generateArbitrary,
    earlier: fc.constantFrom<Earlier>({ kind: 'none' }, { kind: 'snapshot', journalMode: 'wal' }),
    steps: fc.array(historyStepArbitrary, { minLength: 5, maxLength: 10 }),
  });
  await check(
    t,
    fc.asyncProperty(scenario, async ({ pageSize, base, earlier, steps }) => {
      const [origin, replica] = emptied(folder);
      generateDatabase(origin, { ...base, pageSize, journalMode: 'wal' });
      const writer = await openWriter(other, origin);
      await makeEarlier({ earlier, after: steps.slice(2), before: [], base, pageSize }, origin, replica);
      const commits = new Set<string>();
      const commit = async (): Promise<void> => {
        await writer.call('step', steps[commits.size % steps.length] as HistoryStep);
        commits.add(await writer.call('imageHash'));
        await writer.exec('UPDATE ledger SET counter = counter + 1');
        commits.add(await writer.call('imageHash'));
      };
      await writer.exec('CREATE TABLE ledger (counter INTEGER)');
      await writer.exec('INSERT INTO ledger VALUES (0)');
      await commit();
      await syncHere({ origin, replica, overwrite: true, onFrame: commit });
      assert.ok(commits.size > 5, `only ${commits.size} commits during the sync`);
      const image = createHash('sha256');
      for (const page of maskedPages(pageImage(replica))) image.update(page);
      assert.ok(commits.has(image.digest('hex')), 'the replica is the origin at none of its commits');
      assert.equal(change(replica, integrity), 'ok');
      await writer.call('close');
    }),
    Math.ceil(RUNS / 4),
  );
});

async function check(
  t: { diagnostic(text: string): void },
  property: fc.IAsyncProperty<unknown>,
  runs: number,
  seen: Readonly<Record<string, number>> = {},
): Promise<void> {
  t.diagnostic(`SQLSYNC_SEED=${SEED}`);
  for (const batch of untilAll(1, seen))
    await fc.assert(property as fc.IAsyncProperty<[unknown]>, {
      seed: SEED + batch,
      numRuns: runs,
      interruptAfterTimeLimit: 300_000,
      endOnFailure: runs < RUNS,
    });
}

/** The two paths, with nothing in their folder. */
function emptied(folder: string): [origin: string, replica: string] {
  for (const name of readdirSync(folder)) rmSync(join(folder, name));
  return [join(folder, 'origin.db'), join(folder, 'replica.db')];
}

function leftovers(folder: string): string[] {
  return readdirSync(folder).filter((name) => /sqlsync-/.test(name));
}

async function openWriter(other: OtherProcess, origin: string): Promise<OtherConnection> {
  const writer = await other.open(origin, { timeoutMs: 0 });
  await writer.exec('PRAGMA synchronous = OFF; PRAGMA wal_autocheckpoint = 0');
  return writer;
}

async function applySteps(writer: OtherConnection, steps: readonly HistoryStep[]): Promise<void> {
  for (const step of steps) await writer.call('step', step);
}

/** Puts the earlier files in place before the sync. */
async function makeEarlier(scenario: Scenario, origin: string, replica: string): Promise<void> {
  const { earlier, pageSize, after } = scenario;
  if (earlier.kind === 'foreign') {
    generateDatabase(replica, { ...earlier.options, pageSize });
    // With the origin's page size, and an arbitrary history of its own.
    change(replica, (db) => after.toReversed().forEach((step) => applyStep(db, step)));
  } else if (earlier.kind === 'part') {
    writeFileSync(join(replica, '..', '.replica.db.sqlsync-part'), partFile(earlier, pageImage(origin)));
  } else if (earlier.kind === 'snapshot' || earlier.kind === 'cut') {
    await syncHere({ origin, replica });
    change(replica, (db) => db.pragma(`journal_mode = ${earlier.journalMode}`));
    if (earlier.kind === 'cut') await cutSync(earlier.frames, origin, replica);
  }
}

/** An image of the origin with random runs of garbage, cut or lengthened to any number of bytes. */
function partFile(earlier: { bytes: number; garbage: number }, image: Buffer): Buffer {
  const random = new Random(earlier.garbage);
  const bytes = Buffer.concat([image, random.bytes(10_000)]).subarray(0, earlier.bytes);
  for (let i = 0; i < 3; i++) random.bytes(700).copy(bytes, random.integer(0, bytes.length));
  return bytes;
}

/** A sync of a changed origin whose connection is cut at some frame; the replica must be as it was. */
async function cutSync(frames: number, origin: string, replica: string): Promise<void> {
  const before = pageImage(replica);
  // Equal databases leave nothing to interrupt.
  change(origin, (db) => db.pragma('user_version = 77'));
  let left = frames;
  let committed = false;
  try {
    await syncHere({
      origin,
      replica,
      onFrame: ({ name }) => {
        committed ||= name === 'done';
        return --left <= 0 ? 'cut' : undefined;
      },
    });
    committed = true;
  } catch (error) {
    assert.ok(error instanceof SqlsyncError && error.code === 'CONNECTION_LOST', String(error));
  }
  if (!committed) assert.ok(pageImage(replica).equals(before), 'an interrupted sync changed the replica');
}

function integrity(db: Database.Database): unknown {
  return db.pragma('integrity_check', { simple: true });
}
