import { mkdtempSync } from 'node:fs';
import { join } from 'node:path';
import { mock } from 'node:test';
import { Random } from '../../../../fixtures/random.ts';
import type { LocalBackend } from '../../../../src/backup/backends/backend.ts';
import { BACKEND_PLACES, GATEWAY_PLACE, openS3 } from '../../../backup/backend-places.ts';
import type { BackendPlace } from '../../../backup/backend-places.ts';
import { BACKEND_FAULTS, FAULT_JOBS, FaultPlace, prepareBase } from '../../../backup/fault-suite.ts';
import { nothingDone, StoreModel } from '../../../model/store-model.ts';
import type { FaultOptions, FaultRow } from '../group.ts';
import { includesFault, Tally } from '../group.ts';

/** Where stores of the model lie. */
interface ModelPlace extends BackendPlace {
  /** How long histories go on, one after another; at least one is lived of each scheme. */
  readonly forMs: number;
}

const DAYS = { short: 3, long: 12 };

const MINUTE_MS = 60_000;

const SCHEMES = ['plain', 'encrypted'] as const;

/**
 * Lives through random histories of a store at each kind of place, plain and encrypted: backups, prunes and forgets at the
 * same time, killed at random operations, that fail before or after their effect.
 */
export async function* liveElsewhere(folder: string, options: FaultOptions): AsyncGenerator<FaultRow> {
  for (const place of placesFor(options)) {
    const tallies = SCHEMES.map((scheme) => new Tally(`history of a store ${place.name}, ${scheme}`));
    const wanted = tallies.filter(({ fault }) => includesFault(options, fault));
    if (wanted.length === 0) continue;
    yield* atPlace(place, folder, async function* (open) {
      for (const tally of wanted) {
        const isEncrypted = tally === tallies[1];
        await liveAt({ ...place, forMs: place.forMs / wanted.length }, open, { tally, isEncrypted }, options);
        yield tally;
      }
    });
  }
}

/** Every operation of a backup, a prune and a forget fails in every way, once; in the long run alone. */
export async function* failElsewhere(folder: string, options: FaultOptions): AsyncGenerator<FaultRow> {
  if (!options.long) return;
  for (const place of BACKEND_PLACES) {
    const tallies = SCHEMES.flatMap((scheme) =>
      BACKEND_FAULTS.map((fault) => ({
        scheme,
        fault,
        tally: new Tally(`operation of a store ${place.name}, ${scheme}, ${fault.name}`),
      })),
    ).filter(({ tally }) => includesFault(options, tally.fault));
    if (tallies.length === 0) continue;
    yield* atPlace(place, folder, async function* (open) {
      for (const scheme of SCHEMES) {
        const made = mkdtempSync(join(folder, 'base-'));
        const base = await prepareBase(made, scheme === 'encrypted' ? 'secret' : undefined);
        const store = new FaultPlace(base, open(), made);
        for (const { fault, tally } of tallies.filter((each) => each.scheme === scheme)) {
          for (const job of FAULT_JOBS) {
            const operations = await store.meet(job, fault, Infinity);
            for (let at = 1; at <= operations; at++)
              await tally.add(`operation ${at}: ${job.name}`, async () => {
                await store.meet(job, fault, at);
                return 'nothing lost';
              });
          }
          yield tally;
        }
      }
    });
  }
}

/** Opens the place for `work`, and ends what that started. */
async function* atPlace(
  place: BackendPlace,
  folder: string,
  work: (open: () => LocalBackend) => AsyncGenerator<FaultRow>,
): AsyncGenerator<FaultRow> {
  const cleanups: (() => unknown)[] = [];
  try {
    const open = await place.open(mkdtempSync(join(folder, 'place-')), (end) => void cleanups.push(end));
    if (typeof open === 'string') process.emitWarning(open);
    else yield* work(open);
  } finally {
    mock.timers.reset();
    for (const end of cleanups.toReversed()) await end();
  }
}

async function liveAt(
  place: ModelPlace,
  open: () => LocalBackend,
  { tally, isEncrypted }: { readonly tally: Tally; readonly isEncrypted: boolean },
  { seed, long }: FaultOptions,
): Promise<void> {
  const startedAtMs = performance.now();
  for (let run = 0; run === 0 || performance.now() - startedAtMs < place.forMs; run++) {
    const cleanups: (() => unknown)[] = [];
    const context = { mock, after: (work: () => unknown): void => void cleanups.push(work) };
    await tally.add(`--seed ${seed}, history ${run}`, async () => {
      const random = new Random(seed + run);
      const { isElsewhere } = place;
      const given = { backend: open(), random, done: nothingDone(), isElsewhere, isEncrypted };
      const model = await StoreModel.start(context, given);
      for (let days = long ? DAYS.long : DAYS.short; days > 0; days--) await model.live();
      await model.finish();
      return 'nothing lost';
    });
    for (const work of cleanups) await work();
  }
}

function placesFor({ long, seed }: FaultOptions): ModelPlace[] {
  const flaky: ModelPlace = {
    name: 'at a flaky service',
    isElsewhere: true,
    forMs: long ? 60 * MINUTE_MS : 0,
    open: (_, after) => openS3(after, { delayMs: long ? 100 : 1, seed }),
  };
  const [here, , bySftp, byAgent] = BACKEND_PLACES as [
    BackendPlace,
    BackendPlace,
    BackendPlace,
    BackendPlace,
  ];
  if (!long) return [flaky, { ...bySftp, forMs: 0 }];
  return [
    { ...here, forMs: 5 * MINUTE_MS },
    { ...bySftp, forMs: 10 * MINUTE_MS },
    { ...byAgent, forMs: 10 * MINUTE_MS },
    { ...GATEWAY_PLACE, forMs: 10 * MINUTE_MS },
    flaky,
  ];
}
