import { setTimeout as delay } from 'node:timers/promises';
import type { Random } from '../../../fixtures/random.ts';
import type { CommandEnd, Commands, RunningCommand } from '../command.ts';

/** Longer than a pause between two signs of life, and much shorter than the limit after which a peer is lost. */
const MAX_STOP_MS = 2500;

/** The time of a command, until some were measured. */
const FIRST_GUESS_MS = 500;

/** Statuses that say what happened; INTERNAL, ROOT_MISMATCH and damage are none of them. */
const CLEAR_STATUSES: ReadonlySet<number | null> = new Set([0, 3, 4, 5, 15, 16, 18, 20, 21, 130]);

/** The counts by the kind of command: how often it ended in which way. */
export type CommandFigures = Map<string, Record<string, number>>;

/** Commands, half of which are killed or stopped for a while at a random moment. */
export class DisturbedCommands {
  readonly figures: CommandFigures = new Map();
  /** True if no further command is disturbed. */
  isCalm = false;
  readonly #commands: Commands;
  readonly #random: Random;
  readonly #broken: string[];
  readonly #typicalMs = new Map<string, number>();

  /** @param broken - gets the broken promises. */
  constructor(commands: Commands, random: Random, broken: string[]) {
    this.#commands = commands;
    this.#random = random;
    this.#broken = broken;
  }

  /** Runs a command to its end, perhaps with a fault. Records an end that does not say what happened. */
  async run(kind: string, args: readonly string[], env?: NodeJS.ProcessEnv): Promise<CommandEnd> {
    const running = this.#commands.run(args, env);
    const isKilled = !this.isCalm && (await this.#disturb(kind, running));
    const end = await running.ended;
    const { status, signal, outcome, message, durationMs } = end;
    const how = signal === null ? (status === 0 ? 'success' : outcome) : `killed by ${signal}`;
    const row = this.figures.get(kind) ?? {};
    this.figures.set(kind, row);
    row[how] = (row[how] ?? 0) + 1;
    if (status === 0) this.#typicalMs.set(kind, (this.#typical(kind) * 4 + durationMs) / 5);
    const isClear = CLEAR_STATUSES.has(status) || (isKilled && signal === 'SIGKILL');
    if (!isClear) this.#broken.push(`${kind}: an end that says nothing: ${how} ${message}`);
    return end;
  }

  /** Kills or stops the command or its agent at a random moment of its life; true for a kill. */
  async #disturb(kind: string, running: RunningCommand): Promise<boolean> {
    const what = this.#random.next();
    if (what > 0.5) return false;
    const ended = new AbortController();
    void running.ended.then(() => ended.abort());
    const wait = (ms: number): Promise<unknown> =>
      delay(ms, undefined, { signal: ended.signal }).catch(() => {});
    await wait(this.#random.next() * this.#typical(kind) * 1.2);
    const pid = this.#random.chance(0.5) ? running.nearPid : running.farPid();
    if (what < 0.25) {
      signalTo(pid, 'SIGKILL');
      return true;
    }
    signalTo(pid, 'SIGSTOP');
    await wait(this.#random.next() * MAX_STOP_MS);
    signalTo(pid, 'SIGCONT');
    return false;
  }

  #typical(kind: string): number {
    return this.#typicalMs.get(kind) ?? FIRST_GUESS_MS;
  }
}

export function signalTo(pid: number | undefined, signal: NodeJS.Signals): void {
  if (pid === undefined || pid === 0) return;
  try {
    process.kill(pid, signal);
  } catch {
    // It has ended by itself.
  }
}
