import type { Random } from '../../../fixtures/random.ts';
import { toSqlsyncError } from '../../../src/errors.ts';

/** One line of the table: one kind of fault, and what became of the syncs that met it. */
export interface FaultRow {
  /** Such as `kill -9 at fsync: replica agent, WAL`. */
  readonly fault: string;
  /** How often it was done. */
  readonly times: number;
  /** How often each outcome was seen. */
  readonly outcomes: Readonly<Record<string, number>>;
  /** Each breach of the invariant in a sentence, with what repeats it. */
  readonly broken: readonly string[];
}

export interface FaultOptions {
  /** Decides what the short run picks, and every random choice of either. */
  readonly seed: number;
  /** Everything, instead of a few by the seed. */
  readonly long: boolean;
  /** Only faults whose name contains this. */
  readonly filter?: string | undefined;
}

/** Yields a row for each kind of fault. Throws only where a fault cannot be tried at all. */
export type FaultGroup = (options: FaultOptions) => AsyncIterable<FaultRow>;

/** Of an assertion, which may show two whole buffers. */
const MAX_WHY_LENGTH = 1000;

/** Counts what came of one kind of fault. */
export class Tally implements FaultRow {
  readonly fault: string;
  readonly outcomes: Record<string, number> = {};
  readonly broken: string[] = [];
  times = 0;

  constructor(fault: string) {
    this.fault = fault;
  }

  /** `attempt` resolves to the outcome in a few words, and rejects where the invariant was broken. */
  async add(where: string, attempt: () => Promise<string>): Promise<void> {
    this.times++;
    let outcome: string;
    try {
      outcome = await attempt();
    } catch (error) {
      outcome = 'BROKEN';
      const why = toSqlsyncError(error).message.replaceAll(/\s+/g, ' ').slice(0, MAX_WHY_LENGTH);
      this.broken.push(`${this.fault}, ${where}: ${why}`);
    }
    this.outcomes[outcome] = (this.outcomes[outcome] ?? 0) + 1;
  }
}

export function includesFault(options: FaultOptions, fault: string): boolean {
  return options.filter === undefined || fault.includes(options.filter);
}

/** So many of them, by the random numbers' choice. */
export function pick<T>(all: readonly T[], count: number, random: Random): T[] {
  const left = [...all];
  const picked: T[] = [];
  while (picked.length < count && left.length > 0) {
    picked.push(...left.splice(random.integer(0, left.length - 1), 1));
  }
  return picked;
}
