import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { generateDatabase, PAGE_SIZES } from '../../fixtures/generate.ts';
import { Random } from '../../fixtures/random.ts';
import { PROGRAM } from '../cli/command.ts';
import { tempDir } from '../support/compare.ts';
import { OtherProcess } from '../support/other-process.ts';
import { PlainApplication, PoolsUser } from './applications.ts';
import type { Application } from './applications.ts';
import { kill, Following, stateOf, untilSeen } from './following.ts';

/** Where the replica's side runs: both here, or one behind a remote shell. */
export const ROUTES = ['local', 'pull', 'push'] as const;
export type Route = (typeof ROUTES)[number];

/** What writes the origin: SQLite of any kind, or the pools alone, where no step waits for a look by time. */
export const WRITERS = ['any', 'pools'] as const;

export interface HistoryOptions {
  readonly seed: number;
  readonly route: Route;
  readonly writer?: (typeof WRITERS)[number];
  /** How many things happen. */
  readonly actions: number;
  /** The one thing that goes wrong, after each change; by default anything does, now and then. */
  readonly fault?: FollowFault | undefined;
  /** No more happens after this time, in milliseconds. */
  readonly maxMs?: number | undefined;
}

/** What can go wrong. The near side is the process that a user started. */
export const FOLLOW_FAULTS = [
  'kill -9 of the near side',
  'kill -9 of the far side',
  'a broken link',
  'SIGSTOP of the near side',
  'SIGSTOP of the far side',
  'kill -9 of the application',
] as const;

export interface FollowFault {
  readonly name: (typeof FOLLOW_FAULTS)[number];
  /** How long after a change begins, in milliseconds: a step takes some tens of these. */
  readonly afterMs: number;
}

const STOPPED_MS = 200;

/** A test, or whatever else says when it ends. */
export interface Ending {
  after(end: () => unknown): void;
}

/**
 * Lets a replica follow an origin through a random history: changes of every kind, checkpoints, VACUUM, other journal
 * modes, an application that dies, agents that are killed or stopped, links that break, a follower that ends and begins
 * again. A reader watches the replica all the time. Throws if it saw a state that the origin never had, saw states out
 * of order, or did not see the last one. Returns what happened.
 */
export async function followHistory(t: Ending, options: HistoryOptions): Promise<string> {
  const history = new FollowedHistory(t, options);
  try {
    await history.run(options);
  } catch (error) {
    throw new Error(`${history.said}\n${JSON.stringify(options)}`, { cause: error });
  }
  return history.outcome;
}

class FollowedHistory {
  readonly #t: Ending;
  readonly #random: Random;
  readonly #route: Route;
  readonly #folder: string;
  readonly #origin: string;
  readonly #replica: string;
  readonly #reader: OtherProcess;
  readonly #byPools: boolean;
  readonly #isLong: boolean;
  #app: Application;
  #following: Following;
  /** The states of the origin, in order. */
  readonly #states: string[] = [];
  /** Different states of the replica, in the order in which the reader saw them. */
  readonly #seen: string[] = [];
  readonly #counts = { failures: 0, steps: 0 };

  constructor(t: Ending, { seed, route, writer, maxMs }: HistoryOptions) {
    this.#isLong = maxMs !== undefined;
    this.#t = t;
    this.#random = new Random(seed);
    this.#route = route;
    this.#folder = tempDir(t);
    this.#origin = join(this.#folder, 'origin.db');
    this.#replica = join(this.#folder, 'replica.db');
    const pageSize = this.#random.pick([...PAGE_SIZES, 512, 1024]);
    this.#byPools = writer === 'pools';
    const journalMode = this.#byPools || this.#random.chance(0.85) ? 'wal' : 'delete';
    generateDatabase(this.#origin, { rows: this.#random.integer(1, 300), pageSize, journalMode });
    this.#reader = new OtherProcess(t);
    this.#app = this.#byPools
      ? new PoolsUser(t, this.#origin, this.#reader)
      : new PlainApplication(t, this.#origin);
    this.#following = this.#follow();
  }

  get said(): string {
    return this.#following.command.said;
  }

  get outcome(): string {
    const { failures, steps } = this.#counts;
    const figures = this.#isLong
      ? `: ${this.#states.length} states, ${this.#seen.length} seen, ${steps} steps, ${failures} failures`
      : '';
    return `${failures === 0 ? 'followed' : 'followed, after failures'}${figures}`;
  }

  async run({ actions, fault, maxMs = Infinity }: HistoryOptions): Promise<void> {
    const end = performance.now() + maxMs;
    await this.#note();
    let isOver = false;
    const watching = this.#watch(() => isOver);
    watching.catch(() => {}); // thrown at the end
    try {
      for (let n = 0; n < actions && performance.now() < end; n++) {
        if (fault === undefined) await this.#act();
        else await this.#changeAndFail(fault);
        await delay(this.#random.pick([0, 5, 20, 60, 150]));
      }
      const last = this.#states.at(-1) as string;
      await untilSeen(this.#reader, this.#replica, last, [this.#following]);
    } finally {
      isOver = true;
      await watching;
    }
    await this.#endFollowing();
    this.#assertInOrder();
  }

  async #act(): Promise<void> {
    const { chance } = { chance: (part: number) => this.#random.chance(part) };
    if (chance(0.05)) return this.#restartWriter();
    if (chance(0.05)) return this.#killAgent();
    if (chance(0.03)) return this.#stopAgent();
    if (chance(0.03)) return this.#restartFollowing();
    return this.#change();
  }

  async #change(): Promise<void> {
    await this.#app.change(this.#random);
    await this.#note();
  }

  async #changeAndFail({ name, afterMs }: FollowFault): Promise<void> {
    await this.#following.untilEvents('step', 1);
    const changed = this.#change();
    changed.catch(() => {}); // thrown below
    // The application does one thing after another.
    if (name === 'kill -9 of the application') await changed;
    await delay(afterMs);
    await this.#fail(name);
    await changed;
  }

  async #fail(name: FollowFault['name']): Promise<void> {
    const [near, ...others] = this.#following.pids();
    // A remote shell leads to the far side. Between two attempts there is neither.
    const [link, far] = [others[0], others.at(-1)];
    switch (name) {
      case 'kill -9 of the application':
        await this.#app.kill();
        return this.#note();
      case 'kill -9 of the near side':
        return this.#killFollowing([near]);
      case 'kill -9 of the far side':
      case 'a broken link':
        return kill(name === 'a broken link' ? link : far, 'SIGKILL');
      default:
        return this.#stop(name === 'SIGSTOP of the near side' ? near : far, STOPPED_MS);
    }
  }

  /** Records the state of the origin. */
  async #note(): Promise<void> {
    const state = await this.#app.state();
    assert.ok(state !== undefined, 'the origin can be read');
    if (state !== this.#states.at(-1)) this.#states.push(state);
  }

  /** The application ends well, or is killed in the middle of a transaction. */
  async #restartWriter(): Promise<void> {
    if (this.#random.chance(0.5)) return this.#app.close();
    await this.#app.kill();
    await this.#note();
  }

  /** Kills the far agent, or the remote shell that leads to it. */
  #killAgent(): void {
    const pids = this.#following.pids().slice(1);
    if (pids.length > 0) kill(this.#random.pick(pids), 'SIGKILL');
  }

  async #stopAgent(): Promise<void> {
    const pids = this.#following.pids();
    if (pids.length > 0) await this.#stop(this.#random.pick(pids), this.#random.integer(10, 200));
  }

  async #stop(pid: number | undefined, ms: number): Promise<void> {
    kill(pid, 'SIGSTOP');
    await delay(ms);
    kill(pid, 'SIGCONT');
  }

  /** The follower ends when asked, or is killed, and another one begins. */
  async #restartFollowing(): Promise<void> {
    if (!this.#random.chance(0.5)) return this.#killFollowing(this.#following.pids());
    await this.#endFollowing();
    this.#following = this.#follow();
  }

  async #killFollowing(pids: readonly (number | undefined)[]): Promise<void> {
    for (const pid of pids) kill(pid, 'SIGKILL');
    await this.#following.command.done;
    this.#following = this.#follow();
  }

  async #endFollowing(): Promise<void> {
    const { status, signal, stdout, summary } = await this.#following.end();
    // Before its first step is whole it was interrupted, and before it listens to signals it dies of one.
    const isEarly = status === 130 || signal === 'SIGTERM';
    // Its status is that of a failure that it has not got over yet.
    const isGood = (status === 0) === (summary?.['failing'] === undefined);
    assert.ok(this.#following.events('step').length > 0 ? isGood : isEarly, stdout);
    this.#counts.failures += this.#following.events('failure').length;
    this.#counts.steps += this.#following.events('step').length;
    const codes = this.#following.events('failure').map(({ code }) => String(code));
    for (const code of codes)
      assert.match(code, /^(?:BUSY|CONNECTION_LOST|TIMEOUT|ORIGIN_HOT_JOURNAL)$/, stdout);
  }

  #follow(): Following {
    const shell = join(this.#folder, 'shell');
    writeFileSync(shell, '#!/bin/sh\nshift\neval "$*"\n', { mode: 0o700 });
    const [origin, replica] = [
      this.#route === 'pull' ? `host:${this.#origin}` : this.#origin,
      this.#route === 'push' ? `host:${this.#replica}` : this.#replica,
    ];
    const remote = ['--rsh', shell, '--remote-exe', `'${process.execPath}' '${PROGRAM}'`];
    const often = ['--full-every', this.#random.pick(['1h', '400ms'])];
    if (this.#byPools) often.push('--interval', '1h');
    return new Following(this.#t, [...(this.#route === 'local' ? [] : remote), ...often, origin, replica]);
  }

  /** Reads the replica all the time, and once more when all is over: the last state may have come between two looks. */
  async #watch(isOver: () => boolean): Promise<void> {
    for (let isLast = false; !isLast; await delay(3)) {
      isLast = isOver();
      const state = await stateOf(this.#reader, this.#replica);
      if (state !== undefined && state !== this.#seen.at(-1)) this.#seen.push(state);
    }
  }

  #assertInOrder(): void {
    let at = 0;
    for (const state of this.#seen) {
      const next = this.#states.indexOf(state, at);
      assert.ok(next >= 0, this.#states.includes(state) ? 'an older state came back' : 'a state of its own');
      at = next;
    }
    assert.equal(this.#seen.at(-1), this.#states.at(-1));
  }
}
