import type { Written } from './writer.ts';

/** The newest commit that a copy had at a moment. */
export interface Sample {
  readonly atMs: number;
  /** Its number; 0 if it had none of this phase. */
  readonly number: number;
}

/** A step into a store. */
export interface StoredStep {
  /** When it was durable, in ms since 1970. */
  readonly atMs: number;
  /** From its snapshot until then. */
  readonly durationMs: number;
}

/** How long commits are only at the origin, in ms, ascending: one value for each sample. */
export interface Ages {
  /** How old the newest commit of the copy is. */
  readonly newest: readonly number[];
  /** How old the oldest commit is that the copy lacks; 0 if it lacks none: what is lost if the origin is lost. */
  readonly lost: readonly number[];
}

export function agesOf(samples: readonly Sample[], { first, times }: Written): Ages {
  const newest: number[] = [];
  const lost: number[] = [];
  for (const { atMs, number } of samples) {
    const had = times[number - first];
    if (had === undefined) continue;
    newest.push(atMs - had);
    const missing = times[number - first + 1] ?? Infinity;
    lost.push(Math.max(0, atMs - missing));
  }
  return { newest: newest.toSorted((a, b) => a - b), lost: lost.toSorted((a, b) => a - b) };
}

/** What a store had every `everyMs`, from the steps that were told: a step has the commits before its snapshot. */
export function samplesOfSteps(
  steps: readonly StoredStep[],
  { first, times }: Written,
  everyMs: number,
): Sample[] {
  const samples: Sample[] = [];
  const end = times.at(-1) ?? 0;
  for (let [atMs, next, number] = [times[0] ?? 0, 0, first - 1]; atMs <= end; atMs += everyMs) {
    for (; (steps[next]?.atMs ?? Infinity) <= atMs; next++) {
      const { atMs: storedMs, durationMs } = steps[next] as StoredStep;
      while ((times[number + 1 - first] ?? Infinity) <= storedMs - durationMs) number++;
    }
    samples.push({ atMs, number });
  }
  return samples;
}

export function at(ascending: readonly number[], share: number): number {
  return ascending[Math.min(ascending.length - 1, Math.floor(ascending.length * share))] ?? NaN;
}

/** The part that is at most `limit`. */
export function within(ascending: readonly number[], limit: number): number {
  return ascending.filter((value) => value <= limit).length / ascending.length;
}
