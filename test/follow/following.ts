import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { Command, jsonLines, until } from '../cli/command.ts';
import type { CommandOptions, Run, Summary } from '../cli/command.ts';
import type { OtherConnection, OtherProcess } from '../support/other-process.ts';

/** A step comes so soon that no test waits long for one. */
export const SOON: readonly string[] = ['--interval', '50ms'];

/** Longer than any step takes; a state that has not come by then does not come. */
const PATIENCE_MS = 60_000;

/** A running `sqlsync follow`; it ends with the test. */
export class Following {
  readonly command: Command;

  constructor(t: { after(end: () => unknown): void }, args: readonly string[], options: CommandOptions = {}) {
    this.command = new Command(['follow', ...SOON, '--json', ...args], {
      ...options,
      env: { SQLSYNC_RETRY_FIRST_PAUSE_MS: '50', ...options.env },
    });
    t.after(() => this.command.child.kill('SIGKILL'));
  }

  /** Its steps, failures and warnings so far. */
  events(type: string): Summary[] {
    return jsonLines(
      this.command.said
        .split('\n')
        .filter((line) => line.startsWith('{'))
        .join('\n'),
    ).filter((event) => event.type === type);
  }

  async untilEvents(type: string, count: number): Promise<Summary[]> {
    await until(() => this.events(type).length >= count, this.command);
    return this.events(type);
  }

  /** True if a step has come after the last failure. */
  get isFollowing(): boolean {
    const last = this.command.said.lastIndexOf('{"type":"failure"');
    return last < this.command.said.lastIndexOf('{"type":"step"');
  }

  /** Asks it to end, and returns what it said in all. */
  async end(): Promise<Run & { summary: Summary }> {
    this.command.child.kill('SIGTERM');
    const run = await this.command.done;
    return { ...run, summary: jsonLines(run.stdout).at(-1) as Summary };
  }

  /** This process and all that it started; none once it has ended, since the system gives its number to others. */
  pids(): number[] {
    const { exitCode, signalCode } = this.command.child;
    if (exitCode !== null || signalCode !== null) return [];
    const all = [this.command.child.pid as number];
    for (const pid of all) all.push(...childrenOf(pid));
    return all;
  }
}

/** Processor time that these processes have used, in ticks of the system's clock. */
export function ticksOf(pids: readonly number[]): number {
  let ticks = 0;
  for (const pid of pids) {
    const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1]?.split(' ') ?? [];
    ticks += Number(fields[11]) + Number(fields[12]);
  }
  return ticks;
}

/** Empty if the process has ended. */
function childrenOf(pid: number): number[] {
  try {
    return readdirSync(`/proc/${pid}/task`).flatMap((task) =>
      readFileSync(`/proc/${pid}/task/${task}/children`, 'utf8').split(' ').filter(Boolean).map(Number),
    );
  } catch {
    return [];
  }
}

/** Waits until a reader of the replica sees this state, and each follower has got over its last failure. */
export async function untilSeen(
  other: OtherProcess,
  replica: string,
  state: string,
  following: readonly Following[],
): Promise<void> {
  const deadline = performance.now() + PATIENCE_MS;
  while ((await stateOf(other, replica)) !== state) {
    const said = following.map(({ command }) => command.said).join('\n');
    if (performance.now() > deadline) assert.fail(`the replica did not come to the last state: ${said}`);
    await delay(10);
  }
  // A reader sees a commit before it is confirmed.
  for (const each of following) await until(() => each.isFollowing, each.command);
}

/** The state of a database as a new connection of another process sees it; undefined if it cannot be read now. */
export async function stateOf(other: OtherProcess, path: string): Promise<string | undefined> {
  let connection: OtherConnection | undefined;
  try {
    connection = await other.open(path, { readonly: true, timeoutMs: 5000 });
    return await connection.call('imageHash');
  } catch (error) {
    if (!String((error as { code?: unknown }).code).startsWith('SQLITE_')) throw error;
    return undefined;
  } finally {
    await connection?.call('close').catch(() => {});
  }
}

/** Sends a signal to a process, unless it has ended. */
export function kill(pid: number | undefined, signal: NodeJS.Signals): void {
  try {
    if (pid !== undefined) process.kill(pid, signal);
  } catch {
    // It has just ended.
  }
}
