import type { Random } from '../../../fixtures/random.ts';
import { toSqlsyncError } from '../../../src/errors.ts';

/** One line of the table: one kind of fault, and the outcomes of the syncs that met it. */
export interface FaultRow {
  /** Such as `kill -9 at fsync: replica agent, WAL`. */
  readonly fault: string;
  /** The number of syncs that met it. */
  readonly times: number;
  /** The number of times of each outcome. */
  readonly outcomes: Readonly<Record<string, number>>;
  /** Each breach of the invariant in a sentence, with the command that repeats it. */
  readonly broken: readonly string[];
}

export interface FaultOptions {
  /** Decides the choice of the short run, and every random choice of either run. */
  readonly seed: number;
  /** Everything, instead of a few by the seed. */
  readonly long: boolean;
  /** Only faults whose name contains this. */
  readonly filter?: string | undefined;
}

/** Yields a row for each kind of fault. Throws only if it cannot try a fault at all. */
export type FaultGroup = (options: FaultOptions) => AsyncIterable<FaultRow>;

/** The length of an assertion's message, which may show two whole buffers. */
const MAX_WHY_LENGTH = 1000;

/** Counts the outcomes of one kind of fault. */
export class Tally implements FaultRow {
  readonly fault: string;
  readonly outcomes: Record<string, number> = {};
  readonly broken: string[] = [];
  times = 0;

  constructor(fault: string) {
    this.fault = fault;
  }

  /** `attempt` resolves to the outcome in a few words, and rejects if the invariant was broken. */
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

/** So many of them, chosen by the random numbers. */
export function pick<T>(all: readonly T[], count: number, random: Random): T[] {
  const left = [...all];
  const picked: T[] = [];
  while (picked.length < count && left.length > 0) {
    picked.push(...left.splice(random.integer(0, left.length - 1), 1));
  }
  return picked;
}
