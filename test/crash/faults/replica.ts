import assert from 'node:assert/strict';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import Database from 'better-sqlite3';
import { Random } from '../../../fixtures/random.ts';
import type { ErrorCode } from '../../../src/errors.ts';
import { toSqlsyncError } from '../../../src/errors.ts';
import { Commands } from '../../soak/command.ts';
import { assertReplicaOf } from '../../support/compare.ts';
import { ObedientChild } from '../../support/child-orders.ts';
import {
  addCells,
  assertOneSnapshot,
  makeStamped,
  nextStamp,
  stampAll,
} from '../../support/stamped-database.ts';
import type { WriterOrder } from '../../support/stamped-writer.ts';
import { change, syncHere } from '../../support/sync.ts';
import type { FrameHook } from '../../support/sync.ts';
import { includesFault, Tally } from './group.ts';
import type { FaultOptions, FaultRow } from './group.ts';

const WRITER = fileURLToPath(new URL('../../support/stamped-writer.ts', import.meta.url));
const READER = fileURLToPath(new URL('../../soak/reader.ts', import.meta.url));

const LONG_TIMES = 150;
const SHORT_TIMES = 2;

const KINDS = ['wal', 'delete', 'absent'] as const;

/** Codes with which a sync may fail if others use its replica, or take it away during the sync. */
const CLEAR_FAILURES: ReadonlySet<ErrorCode> = new Set<ErrorCode>([
  'BUSY',
  'REPLICA_EXISTS',
  'REPLICA_REPLACED',
  'REPLICA_UNWRITABLE',
  'REPLICA_NOT_A_DATABASE',
]);

type Meddler = ObedientChild<WriterOrder, unknown>;

type Trial = (place: Place, meddlers: readonly Meddler[]) => Promise<string>;

interface Named {
  readonly name: string;
  /** Processes that use the replica meanwhile. */
  readonly meddlers: (place: Place) => Promise<Meddler[]>;
  readonly trial: Trial;
}

const TRIALS: readonly Named[] = [
  { name: 'two syncs into it at once', meddlers: () => Promise.resolve([]), trial: twoSyncs },
  { name: 'others read and checkpoint it', meddlers: checkpointers, trial: disturbed },
  { name: 'others write it', meddlers: writers, trial: disturbed },
  {
    name: 'its -wal is removed between two syncs',
    meddlers: () => Promise.resolve([]),
    trial: walRemovedBetween,
  },
  { name: 'its -wal is removed during a sync', meddlers: () => Promise.resolve([]), trial: walRemovedDuring },
  { name: 'its -wal is removed while another has it open', meddlers: holders, trial: walRemovedDuring },
];

/** A replica that others use, or damage, while it is synced. */
export async function* replica(options: FaultOptions): AsyncIterable<FaultRow> {
  for (const { name, meddlers, trial } of TRIALS) {
    const tally = new Tally(name);
    if (!includesFault(options, tally.fault)) continue;
    const place = new Place(options.seed);
    const children: Meddler[] = [];
    try {
      await place.make(place.random.pick(KINDS.slice(0, 2)));
      children.push(...(await meddlers(place)));
      for (let i = 0; i < (options.long ? LONG_TIMES : SHORT_TIMES); i++) {
        await tally.add(`time ${i + 1}`, () => trial(place, children));
      }
      for (const child of children) await child.order('pause');
      await tally.add('the last', () => place.converge());
      for (const child of children) await child.stop();
    } finally {
      for (const child of children) await child.stop().catch(() => {});
      place.clear();
    }
    yield tally;
  }
}

/** An origin that only `advance` writes, and a replica of it. */
class Place {
  readonly random: Random;
  readonly origin: string;
  readonly replica: string;
  readonly commands: Commands;
  readonly #folder: string;

  constructor(seed: number) {
    this.random = new Random(seed);
    this.#folder = mkdtempSync(join(tmpdir(), 'sqlsync-replica-'));
    this.origin = join(this.#folder, 'origin.db');
    mkdirSync(join(this.#folder, 'replica'));
    this.replica = join(this.#folder, 'replica', 'replica.db');
    this.commands = new Commands(this.#folder, undefined);
    makeStamped(this.origin, { seed, cells: 300 });
  }

  /** Makes the replica of the current origin, in this journal mode, or none. */
  async make(kind: (typeof KINDS)[number]): Promise<void> {
    if (kind === 'absent') {
      for (const name of readdirSync(dirname(this.replica))) rmSync(join(dirname(this.replica), name));
      return;
    }
    await this.sync();
    change(this.replica, (database) => database.pragma(`journal_mode = ${kind}`));
  }

  /** A commit of the origin; returns its stamp. */
  advance(): number {
    return change(this.origin, (database) => {
      const stamp = nextStamp();
      database.transaction(() => {
        addCells(database, this.random, this.random.integer(0, 40));
        database.prepare('DELETE FROM cell WHERE id % 50 = ?').run(this.random.integer(0, 49));
        stampAll(database, stamp);
      })();
      return stamp;
    });
  }

  /** Resolves to the outcome, or to the code of a clear failure. */
  async sync(onFrame?: FrameHook): Promise<string> {
    const pair = { origin: this.origin, replica: this.replica, overwrite: true, busyTimeoutMs: 1000 };
    try {
      const { outcomeName } = await syncHere({ ...pair, ...(onFrame === undefined ? {} : { onFrame }) });
      return outcomeName;
    } catch (error) {
      const failure = toSqlsyncError(error);
      if (!CLEAR_FAILURES.has(failure.code)) throw failure;
      return failure.code;
    }
  }

  async converge(): Promise<string> {
    this.advance();
    assert.equal(await this.sync(), 'committed');
    assertReplicaOf(this.origin, this.replica);
    const others = readdirSync(dirname(this.replica)).filter((name) => /sqlsync-/.test(name));
    assert.deepEqual(others, [], 'left beside the replica');
    return 'left alone: equal';
  }

  clear(): void {
    rmSync(this.#folder, { recursive: true });
  }
}

/**
 * Each sync succeeds or says why not. In the end the replica is one snapshot, and the newer one if both
 * succeeded: also if the sync that began last ended first.
 */
async function twoSyncs(place: Place): Promise<string> {
  await place.make(place.random.pick(KINDS));
  const first = place.advance();
  const one = place.commands.start('local', place.origin, place.replica);
  if (place.random.chance(0.5)) await delay(place.random.integer(0, 200));
  const second = place.random.chance(0.5) ? place.advance() : first;
  const other = place.commands.start('local', place.origin, place.replica);
  const ends = await Promise.all([one.ended, other.ended]);
  for (const { status, outcome } of ends) {
    assert.ok(status === 0 || CLEAR_FAILURES.has(outcome as ErrorCode), outcome);
  }
  assert.ok(
    ends.some(({ status }) => status === 0),
    'neither got through',
  );
  const { stamp = 0 } = assertOneSnapshot(place.replica);
  assert.ok(stamp === first || stamp === second, 'a stamp of nobody');
  // The other sync began after the second stamp was there.
  if (ends[1].status === 0) assert.equal(stamp, second, 'an older sync took the replica back');
  return ends
    .map(({ outcome }) => outcome)
    .sort()
    .join(' and ');
}

/** Any reader in a transaction sees one snapshot; a child that sees another thing ends and fails the trial. */
async function disturbed(place: Place): Promise<string> {
  const stamp = place.advance();
  const outcome = await place.sync(async () => {
    if (place.random.chance(0.5)) await delay(place.random.integer(0, 5));
  });
  const copied = assertOneSnapshot(place.replica).stamp ?? 0;
  // Other writers of the replica have later stamps; nobody writes the origin.
  if (['committed', 'unchanged'].includes(outcome)) assert.ok(copied >= stamp, `${outcome}: of ${copied}`);
  return outcome;
}

async function checkpointers(place: Place): Promise<Meddler[]> {
  const kinds = 'passive,full,restart,truncate,reopen';
  return [
    await ObedientChild.start(READER, ['1', place.replica]),
    await ObedientChild.start(WRITER, [place.replica, '1', kinds, '3']),
  ];
}

async function writers(place: Place): Promise<Meddler[]> {
  const kinds = 'write,deleteMany,vacuum,truncate,reopen';
  return [
    await ObedientChild.start(READER, ['1', place.replica]),
    await ObedientChild.start(WRITER, [place.replica, '1', kinds, '20']),
  ];
}

/** The newest commits may be lost with the file, and the rest may be no database at all; the next sync mends it. */
async function walRemovedBetween(place: Place): Promise<string> {
  await place.make('wal');
  place.advance();
  const holder = new Database(place.replica, { readonly: true });
  holder.transaction(() => holder.prepare('SELECT count(*) FROM cell').get())();
  // The holder's last checkpoint would move the frames into the file.
  holder.exec('BEGIN');
  holder.prepare('SELECT count(*) FROM cell').get();
  const before = await place.commands.start('local', place.origin, place.replica).ended;
  assert.equal(before.status, 0, before.outcome);
  assert.ok(existsSync(`${place.replica}-wal`));
  for (const suffix of ['-wal', '-shm']) rmSync(place.replica + suffix);
  holder.close();
  return place.converge();
}

async function holders(place: Place): Promise<Meddler[]> {
  const child: Meddler = await ObedientChild.start(WRITER, [place.replica, '1', 'nothing', '1000']);
  await child.order('pause');
  return [child];
}

/**
 * A success is one: a new reader finds what the sync reported. If nobody else has the replica open, the last
 * checkpoint saves the content of the removed file; else it is lost when the last reader goes.
 */
async function walRemovedDuring(place: Place, [other]: readonly Meddler[]): Promise<string> {
  await place.make('wal');
  await other?.order('hold');
  const stamp = place.advance();
  let left = place.random.integer(1, 14);
  const outcome = await place.sync(() => {
    if (--left !== 0) return;
    rmSync(`${place.replica}-wal`, { force: true });
    if (place.random.chance(0.5)) rmSync(`${place.replica}-shm`, { force: true });
  });
  await other?.order('pause');
  if (outcome === 'committed') assert.equal(assertOneSnapshot(place.replica).stamp, stamp);
  await place.converge();
  return outcome;
}
