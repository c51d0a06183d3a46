import { followHistory, ROUTES, WRITERS } from '../follow/history.ts';
import type { Ending } from '../follow/history.ts';

/**
 * Replicas follow one origin after another, each for as long as the others: beside applications that use SQLite alone,
 * and beside the pools, here and over a remote shell, while things go wrong. `report` gets each broken promise.
 */
export async function soakFollow(
  minutes: number,
  seed: number,
  report: (text: string) => void,
): Promise<void> {
  const runs = WRITERS.flatMap((writer) => ROUTES.map((route) => ({ writer, route })));
  const maxMs = (minutes * 60_000) / runs.length;
  for (const [i, run] of runs.entries()) {
    const endings: (() => unknown)[] = [];
    const ending: Ending = { after: (end) => void endings.push(end) };
    try {
      const outcome = await followHistory(ending, { ...run, seed: seed + i, actions: Infinity, maxMs });
      console.log(`follow, ${run.route}, ${run.writer}: ${outcome}`);
    } catch (error) {
      report(error instanceof Error ? `${error.message} ${String(error.cause)}` : String(error));
    } finally {
      for (const end of endings.toReversed()) await end();
    }
  }
}
