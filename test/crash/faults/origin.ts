import assert from 'node:assert/strict';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { Random } from '../../../fixtures/random.ts';
import type { ErrorCode } from '../../../src/errors.ts';
import { toSqlsyncError } from '../../../src/errors.ts';
import { assertReplicaOf } from '../../support/compare.ts';
import { assertOneSnapshot } from '../../support/stamped-database.ts';
import { REPLACEMENTS, StampedOrigin } from '../../support/stamped-origin.ts';
import { change, syncHere } from '../../support/sync.ts';
import { untilAll } from '../../support/until-all.ts';
import { includesFault, Tally } from './group.ts';
import type { FaultOptions, FaultRow } from './group.ts';

interface Trial {
  readonly name: string;
  /** The jobs of the writers, beside plain writes. */
  readonly kinds: readonly string[];
  readonly replaces?: boolean;
}

/** Things that an owner can do to an origin while it is copied. */
const TRIALS: readonly Trial[] = [
  { name: 'transactions of all sizes', kinds: ['insertMany', 'deleteMany', 'deleteEnd', 'rewrite'] },
  { name: 'all modes of checkpoint', kinds: ['passive', 'full', 'restart', 'truncate', 'reopen'] },
  { name: 'VACUUM and auto_vacuum', kinds: ['vacuum', 'autoVacuum', 'incrementalVacuum', 'deleteMany'] },
  { name: 'change of the page size', kinds: ['pageSize'] },
  { name: 'change of journal_mode', kinds: ['journalMode', 'truncate'] },
  { name: 'DROP and CREATE of everything', kinds: ['recreate'] },
  { name: 'emptied and filled again', kinds: ['empty', 'insertMany'] },
  { name: 'replaced by another file', kinds: ['truncate', 'insertMany'], replaces: true },
  { name: 'everything at once', kinds: ['all'], replaces: true },
];

const LONG_SYNCS = 400;
const SHORT_SYNCS = 5;
/** The short run takes so many of the trials by the seed, and the last, which does everything. */
const SHORT_TRIALS = 3;

/** The codes with which a sync of such an origin may fail; the next one must succeed once the origin is left alone. */
const CLEAR_FAILURES: ReadonlySet<ErrorCode> = new Set<ErrorCode>([
  'BUSY',
  'ORIGIN_REPLACED',
  'ORIGIN_NOT_FOUND',
]);

/** Syncs beside processes that do to the origin anything that its owner may do: each replica is one snapshot of it. */
export async function* origin(options: FaultOptions): AsyncIterable<FaultRow> {
  for (const trial of options.long ? TRIALS : someTrials(options.seed)) {
    const tally = new Tally(trial.name);
    if (!includesFault(options, tally.fault)) continue;
    const folder = mkdtempSync(join(tmpdir(), 'sqlsync-origin-'));
    try {
      await new Trying(folder, trial, tally, options).run();
    } finally {
      rmSync(folder, { recursive: true });
    }
    yield tally;
  }
}

function someTrials(seed: number): Trial[] {
  const random = new Random(seed);
  const others = TRIALS.slice(0, -1).map((trial) => ({ trial, rank: random.next() }));
  others.sort((a, b) => a.rank - b.rank);
  return [...others.slice(0, SHORT_TRIALS).map(({ trial }) => trial), TRIALS.at(-1) as Trial];
}

class Trying {
  readonly #trial: Trial;
  readonly #tally: Tally;
  readonly #random: Random;
  readonly #isLong: boolean;
  readonly #origin: StampedOrigin;
  readonly #replica: string;

  constructor(folder: string, trial: Trial, tally: Tally, options: FaultOptions) {
    this.#trial = trial;
    this.#tally = tally;
    this.#random = new Random(options.seed ^ TRIALS.indexOf(trial));
    this.#isLong = options.long;
    this.#origin = new StampedOrigin(join(folder, 'origin.db'), { seed: this.#random.uint32() });
    this.#replica = join(folder, 'replica', 'replica.db');
  }

  async run(): Promise<void> {
    const kinds = this.#trial.kinds.includes('all') ? ['all'] : ['write', ...this.#trial.kinds];
    await this.#origin.start({ processes: 2, kinds, pauseMs: 1, seed: this.#random.integer(1, 1e6) });
    try {
      // Two writers and a snapshot may keep each other from some of these for long.
      const wanted = this.#isLong ? kinds.filter((name) => name !== 'all') : [];
      const done = Object.fromEntries(wanted.map((name) => [name, 0]));
      for (const i of untilAll(this.#isLong ? LONG_SYNCS : SHORT_SYNCS, done)) {
        const earlier = this.#random.pick(['as it is', 'as it is', 'rollback', 'absent'] as const);
        await this.#tally.add(`sync ${i + 1}`, () => this.#sync(i === 0 ? 'absent' : earlier));
        for (const report of await this.#origin.report())
          for (const kind of wanted) done[kind] = (done[kind] ?? 0) + (report.done[kind] ?? 0);
      }
      await this.#origin.pause();
      await this.#tally.add('the last', async () => {
        await this.#copy();
        // An existing replica of an origin of 0 bytes becomes an empty database, which has a page.
        const isEmptyFile = statSync(this.#origin.path).size === 0;
        if (isEmptyFile) assert.equal(assertOneSnapshot(this.#replica).stamp, undefined);
        else assertReplicaOf(this.#origin.path, this.#replica);
        return 'left alone: equal';
      });
    } finally {
      await this.#origin.stop();
    }
  }

  /** One sync, which lets the writers work for a while at any message. */
  async #sync(earlier: 'as it is' | 'rollback' | 'absent'): Promise<string> {
    this.#prepare(earlier);
    const stamp = this.#originStamp();
    const isReplaced = this.#trial.replaces === true && this.#random.chance(0.5);
    const replacing = isReplaced ? this.#replaceSoon() : undefined;
    try {
      const outcome = await this.#copy().catch((error: unknown) => {
        const failure = toSqlsyncError(error);
        // Between the removal of its WAL and the new file the origin lacks pages.
        const isCutOff = isReplaced && / cut off origin /.test(failure.message);
        if (!CLEAR_FAILURES.has(failure.code) && !isCutOff) throw failure;
        return failure.code;
      });
      const isSuccess = ['committed', 'unchanged'].includes(outcome);
      if (this.#exists()) {
        const copied = assertOneSnapshot(this.#replica).stamp;
        if (isSuccess) this.#assertAsNewAs(stamp, copied);
      } else assert.ok(!isSuccess, `${outcome}, and there is no replica`);
      // Pages that arrived for a failed copy wait in the spool for the next one.
      const isLeft = isSuccess ? /-(spool|next)$/ : /-next$/;
      const others = readdirSync(join(this.#replica, '..')).filter((name) => isLeft.test(name));
      assert.deepEqual(others, [], 'left beside the replica');
      return outcome;
    } finally {
      await replacing;
    }
  }

  /** The newest commit of the origin; 0 if it has no tables just now, or its owner is in the way. */
  #originStamp(): number {
    try {
      return assertOneSnapshot(this.#origin.path).stamp ?? 0;
    } catch (error) {
      if (error instanceof assert.AssertionError) throw error;
      return 0;
    }
  }

  /** Checks that the snapshot of a successful sync began after the sync did. */
  #assertAsNewAs(stamp: number, copied: number | undefined): void {
    const { kinds, replaces } = this.#trial;
    const mayBeEmpty = replaces === true || kinds.includes('empty') || kinds.includes('all');
    if (copied === undefined) assert.ok(mayBeEmpty, 'a replica without tables, which the origin never was');
    else assert.ok(copied >= stamp, `the replica is of ${copied}, and the origin was at ${stamp} before`);
  }

  #prepare(earlier: 'as it is' | 'rollback' | 'absent'): void {
    const folder = join(this.#replica, '..');
    if (earlier === 'absent') {
      rmSync(folder, { recursive: true, force: true });
      mkdirSync(folder);
    } else if (this.#exists()) {
      const mode = earlier === 'rollback' ? 'delete' : this.#random.pick(['wal', 'delete']);
      change(this.#replica, (database) => database.pragma(`journal_mode = ${mode}`));
    }
  }

  async #copy(): Promise<string> {
    const { outcomeName } = await syncHere({
      origin: this.#origin.path,
      replica: this.#replica,
      replace: true,
      overwrite: true,
      busyTimeoutMs: 2000,
      onFrame: async () => {
        if (this.#random.chance(0.4)) await delay(this.#random.integer(0, 4));
      },
    });
    return outcomeName;
  }

  /** Another file takes the origin's name at a random moment of the sync. */
  async #replaceSoon(): Promise<void> {
    await delay(this.#random.integer(0, 40));
    await this.#origin.replace(this.#random.pick(REPLACEMENTS));
  }

  #exists(): boolean {
    return existsSync(this.#replica);
  }
}
