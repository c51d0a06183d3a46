import { aged, flip, Kept, noQuickCheck, prepareQuickTests } from '../support/quick.ts';
import { keepAllTrees } from '../support/known-tree.ts';
import assert from 'node:assert/strict';
import { realpathSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { after, test } from 'node:test';
import type { TestContext } from 'node:test';
import fc from 'fast-check';
import { generateDatabase } from '../../fixtures/generate.ts';
import { DEFAULT_HASH } from '../../protocol/messages.ts';
import type { HistoryStep } from '../../fixtures/history.ts';
import { assertSamePages, tempDir } from '../support/compare.ts';
import { historyStepArbitrary } from '../support/history-arbitrary.ts';
import type { OtherConnection } from '../support/other-process.ts';
import { OtherProcess } from '../support/other-process.ts';
import { untilAll } from '../support/until-all.ts';

prepareQuickTests({ after });
keepAllTrees();
const { change, syncHere } = await import('../support/sync.ts');
const { lookAtKnownCopy } = await import('../../src/sync/folder/known-copies.ts');
const { Looker } = await import('../../src/sync/folder/look.ts');

/** Repeat a failure with `SQLSYNC_SEED=… npm test`, more cases with SQLSYNC_RUNS. */
const SEED = Number(process.env['SQLSYNC_SEED'] ?? Date.now() % 2 ** 31);
const RUNS = Number(process.env['SQLSYNC_RUNS'] ?? 8);

const EVENTS = [
  'close',
  'kill',
  'wal',
  'delete',
  'roll-back',
  'keep',
  'restore',
  'flip-origin',
  'flip-replica',
  'write-replica',
  'update',
] as const;

/** What happens between two syncs: a step of the program that writes the origin, or something worse. */
type Event = { kind: 'step'; step: HistoryStep } | { kind: (typeof EVENTS)[number] };

interface Round {
  readonly events: readonly Event[];
  /** Whether the last change is old enough for a stamp when the round syncs. */
  readonly waits: boolean;
  /** Whether the round is that of a folder, which looks first and leaves a known copy alone. */
  readonly looks: boolean;
}

const eventArbitrary: fc.Arbitrary<Event> = fc.oneof(
  { weight: 3, arbitrary: fc.record({ kind: fc.constant('step' as const), step: historyStepArbitrary }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constantFrom(...EVENTS) }) },
  { weight: 2, arbitrary: fc.constant({ kind: 'update' as const }) },
);

/** Half of the rounds change nothing, so that many syncs are quick, or could be so by mistake. */
const roundArbitrary: fc.Arbitrary<Round> = fc.record({
  events: fc.oneof(fc.constant([]), fc.array(eventArbitrary, { minLength: 1, maxLength: 3 })),
  waits: fc.integer({ min: 0, max: 3 }).map((number) => number > 0),
  looks: fc.boolean(),
});

/** The origin with the program that writes it, and the replica. */
class Place {
  readonly origin: string;
  readonly replica: string;
  readonly #t: TestContext;
  #program: OtherProcess | undefined;
  #writer: OtherConnection | undefined;
  #kept: Kept | undefined;

  constructor(t: TestContext, folder: string) {
    this.#t = t;
    this.origin = join(folder, 'origin.db');
    this.replica = join(folder, 'replica.db');
  }

  async happen(event: Event): Promise<void> {
    switch (event.kind) {
      case 'step':
        return (await this.#writing()).call('step', event.step);
      case 'close':
        return this.close();
      case 'kill':
        await this.#program?.end();
        this.#program = this.#writer = undefined;
        return;
      case 'wal':
      case 'delete':
        await (await this.#writing()).rows(`PRAGMA journal_mode = ${event.kind}`);
        return;
      case 'roll-back':
        await (
          await this.#writing()
        ).exec('PRAGMA cache_size = 1; BEGIN; UPDATE item SET payload = randomblob(900); ROLLBACK');
        return;
      case 'keep':
        await this.close();
        this.#kept = new Kept(this.origin);
        return;
      case 'restore':
        await this.close();
        if (this.#kept === undefined) return;
        for (const suffix of ['-wal', '-shm']) rmSync(this.origin + suffix, { force: true });
        this.#kept.putBack();
        return;
      case 'flip-origin':
        return flip(this.origin);
      case 'flip-replica':
        return flip(this.replica);
      case 'update':
        return (await this.#writing()).exec('UPDATE item SET amount = amount + 1 WHERE id % 20 = 3');
      case 'write-replica':
        change(this.replica, (db) => db.pragma('user_version = 77'));
    }
  }

  /** As the run of a folder decides whether the pair needs a sync. */
  isKnownCopy(): boolean {
    const { origin, replica } = this;
    const looker = new Looker();
    const originStamp = looker.look(realpathSync(origin))?.stamp;
    const how = { hash: DEFAULT_HASH, fullEveryMs: 1e9 };
    const copy = originStamp && { replica, originName: origin, originStamp };
    return copy !== undefined && lookAtKnownCopy(copy, how, looker) !== undefined;
  }

  async close(): Promise<void> {
    await this.#writer?.call('close');
    this.#writer = undefined;
  }

  async #writing(): Promise<OtherConnection> {
    this.#program ??= new OtherProcess(this.#t);
    return (this.#writer ??= await this.#program.open(this.origin));
  }
}

test(
  'any history between two syncs makes the replica exact, quick or not, of a folder or not, with hashes of earlier runs or without',
  {
    skip: noQuickCheck() ?? false,
  },
  async (t) => {
    t.diagnostic(`SQLSYNC_SEED=${SEED}`);
    const syncs = { skipped: 0, quick: 0, notQuick: 0, originKnown: 0, replicaKnown: 0 };
    const scenario = fc.record({
      journalMode: fc.constantFrom('wal' as const, 'delete' as const),
      rounds: fc.array(roundArbitrary, { minLength: 4, maxLength: 9 }),
    });
    const property = fc.asyncProperty(scenario, async ({ journalMode, rounds }) => {
      const place = new Place(t, tempDir(t));
      const { origin, replica } = place;
      generateDatabase(origin, { rows: 200, pageSize: 1024, journalMode });
      await syncHere({ origin, replica });
      for (const { events, waits, looks } of rounds) {
        // A damaged database refuses some steps.
        for (const event of events) await place.happen(event).catch(refused);
        if (waits) await aged(origin, replica);
        if (looks && place.isKnownCopy()) {
          syncs.skipped++;
          assertSamePages(origin, replica);
          continue;
        }
        const notes: string[] = [];
        const onNote = (note: string): unknown => notes.push(note);
        const result = await syncHere({ origin, replica, overwrite: true, onNote });
        if (/new frames in its WAL/.test(notes.join())) syncs.originKnown++;
        if (/is as an earlier run left it/.test(notes.join())) syncs.replicaKnown++;
        syncs[result.quick ? 'quick' : 'notQuick']++;
        assertSamePages(origin, replica);
      }
      await place.happen({ kind: 'kill' });
    });
    for (const batch of untilAll(1, syncs))
      await fc.assert(property, {
        seed: SEED + batch,
        numRuns: RUNS,
        interruptAfterTimeLimit: 300_000,
        endOnFailure: true,
      });
    t.diagnostic(JSON.stringify(syncs));
  },
);

function refused(error: unknown): void {
  const { code } = error as { code?: string };
  assert.match(code ?? '', /^SQLITE_(?:CORRUPT|ERROR|NOTADB|CONSTRAINT)/, String(error));
}
