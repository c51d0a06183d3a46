import { Random } from '../../../fixtures/random.ts';
import { followHistory, FOLLOW_FAULTS, ROUTES, WRITERS } from '../../follow/history.ts';
import type { Ending, HistoryOptions } from '../../follow/history.ts';
import { includesFault, pick, Tally } from './group.ts';
import type { FaultGroup } from './group.ts';

/** A step begins some tens of milliseconds after a change, and takes about as long. */
const LAST_MS = 160;
const STEP_MS = 16;
/** Changes of each history, with the fault after each. */
const ACTIONS = 6;
const SHORT_RUN = 1;

/**
 * A replica that follows while agents are killed and stopped, links break and the application dies, at all moments of a
 * step: a reader of the replica sees one state of the origin after another, and the last one in the end.
 */
export const follow: FaultGroup = async function* (options) {
  const random = new Random(options.seed);
  const faults = FOLLOW_FAULTS.flatMap((name) =>
    WRITERS.flatMap((writer) => ROUTES.map((route) => ({ name, writer, route }))),
  ).filter(({ name, route }) => name !== 'a broken link' || route !== 'local');
  for (const { name, writer, route } of options.long ? faults : pick(faults, SHORT_RUN, random)) {
    const tally = new Tally(`${name}: ${route}, ${writer === 'pools' ? 'pools' : 'any writer'}`);
    if (!includesFault(options, tally.fault)) continue;
    for (const afterMs of momentsOf(options.long, random)) {
      const seed = random.uint32();
      const history = { seed, route, writer, actions: ACTIONS, fault: { name, afterMs } };
      await tally.add(`after ${afterMs} ms, history ${seed}`, () => attempt(history));
    }
    yield tally;
  }
};

function momentsOf(isLong: boolean, random: Random): number[] {
  const all = Array.from({ length: LAST_MS / STEP_MS }, (_, i) => i * STEP_MS);
  return isLong ? all : pick(all, 1, random);
}

async function attempt(history: HistoryOptions): Promise<string> {
  const endings: (() => unknown)[] = [];
  const ending: Ending = { after: (end) => void endings.push(end) };
  try {
    return await followHistory(ending, history);
  } finally {
    for (const end of endings.toReversed()) await end();
  }
}
