import type { ChildProcess } from 'node:child_process';
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { lstatSync, readFileSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import type { TestContext } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import Database from 'better-sqlite3';
import type { ChildReply, ChildRequest } from './admission-child.ts';

const CHILD = fileURLToPath(new URL('./admission-child.ts', import.meta.url));

export interface GivenTurn {
  /**
   * Whether the process gave itself the turn: on a busy machine the coordinator may be silent for longer than
   * a member waits.
   */
  readonly isOwn: boolean;
}

/** A real process that queues for a database. Killed when the test ends. */
export class QueueProcess {
  readonly #child: ChildProcess;
  readonly #exited: Promise<unknown>;
  readonly #requests: PromiseWithResolvers<unknown>[] = [];
  #turn: PromiseWithResolvers<GivenTurn> | undefined;

  constructor(t: TestContext) {
    this.#child = fork(CHILD, { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] });
    this.#exited = once(this.#child, 'exit');
    this.#child.on('message', ({ type, value }: ChildReply) => {
      if (type === 'turn') this.#turn?.resolve({ isOwn: value === true });
      else if (type === 'done') this.#requests.shift()?.resolve(value);
      else (this.#requests.shift() ?? this.#turn)?.reject(new Error(String(value)));
    });
    t.after(() => this.kill());
  }

  /** Opens the queue of `path`; the first process to join coordinates. */
  static async open(t: TestContext, path: string): Promise<QueueProcess> {
    const opened = new QueueProcess(t);
    await opened.request({ type: 'open', path });
    return opened;
  }

  request(request: ChildRequest): Promise<unknown> {
    const answer = Promise.withResolvers<unknown>();
    this.#requests.push(answer);
    this.#child.send(request);
    return answer.promise;
  }

  /** Resolves when the process waits; `turn` resolves when it has the turn. */
  async enter(): Promise<{ turn: Promise<GivenTurn> }> {
    const turn = Promise.withResolvers<GivenTurn>();
    // A test that ends earlier has no use for the turn.
    turn.promise.catch(() => {});
    this.#turn = turn;
    await this.request({ type: 'enter' });
    return { turn: turn.promise };
  }

  async enterNow(): Promise<GivenTurn> {
    return await (
      await this.enter()
    ).turn;
  }

  /**
   * Enters until the coordinator grants the turn: on a busy machine it may be silent for so long that the process gives
   * itself the turn, and then no other process waits for it.
   */
  async enterByGrant(): Promise<void> {
    for (;;) {
      const { turn } = await this.enter();
      if (!(await turn).isOwn) return;
      await this.leave();
      await delay(1);
    }
  }

  /** Holds the turn until others wait for it and its slice is used up. */
  async untilOver(): Promise<void> {
    while ((await this.request({ type: 'isOver' })) !== true) await delay(1);
  }

  async leave(): Promise<void> {
    await this.request({ type: 'leave' });
  }

  async close(): Promise<void> {
    await this.request({ type: 'close' });
    this.#child.disconnect();
    await this.#exited;
  }

  /** Ends like a program that never closed its database. */
  async forget(): Promise<unknown> {
    await this.request({ type: 'forget' });
    return await this.#exited;
  }

  async stop(): Promise<void> {
    this.#child.kill('SIGSTOP');
    while (!/\) T/.test(readFileSync(`/proc/${this.#child.pid}/stat`, 'utf8'))) await delay(1);
  }

  goOn(): void {
    this.#child.kill('SIGCONT');
  }

  async kill(): Promise<void> {
    this.#child.kill('SIGKILL');
    await this.#exited;
  }
}

/** Opens the first process and lets it become the coordinator. */
export async function openCoordinator(t: TestContext, path: string): Promise<QueueProcess> {
  const coordinator = await QueueProcess.open(t, path);
  while (lstatSync(socketPath(path), { throwIfNoEntry: false })?.isSocket() !== true) await delay(1);
  // Goes through the queue once, so that it is a member itself.
  await coordinator.enterNow();
  await coordinator.leave();
  return coordinator;
}

/** Opens `count` processes that are in the queue already. */
export async function openMembers(t: TestContext, path: string, count: number): Promise<QueueProcess[]> {
  const members = await Promise.all(Array.from({ length: count }, () => QueueProcess.open(t, path)));
  for (const member of members) {
    await member.enterNow();
    await member.leave();
  }
  return members;
}

export function socketPath(databasePath: string): string {
  return join(dirname(databasePath), `.${basename(databasePath)}.sqlsync-queue`);
}

export function makeDatabase(path: string): string {
  const database = new Database(path);
  database.pragma('journal_mode = WAL');
  database.exec('CREATE TABLE t (writer)');
  database.close();
  return path;
}
