import assert from 'node:assert/strict';
import { readFileSync, readdirSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import type { Status } from '../../../src/service/state/judge.ts';
import { Command, jsonLines, sqlsync, until } from '../../cli/command.ts';
import { events } from '../../service/running-service.ts';
import type { Looks } from './looks.ts';
import { SECRETS } from './scene.ts';
import type { Origin, Scene } from './scene.ts';

const MB = 2 ** 20;

/** Until a service has all that it will have: compiled code, buffers. */
const WARM_UP_MS = 30_000;

/** How much more than after the warm-up it may have at the end: what the collector has not yet given back. */
const MAX_GROWTH = { megabytes: 60, descriptors: 10 } as const;

interface Sample {
  readonly megabytes: number;
  readonly descriptors: number;
}

/** The service that is tried, one process after another. */
export class TriedService {
  readonly #scene: Scene;
  readonly #looks: Looks;
  #command: Command | undefined;
  #startedAtMs = 0;
  #isStopped = false;
  /** Of the process that runs, since it was warm. */
  #samples: Sample[] = [];

  constructor(scene: Scene, looks: Looks) {
    this.#scene = scene;
    this.#looks = looks;
  }

  get isAnswering(): boolean {
    return this.#command !== undefined && !this.#isStopped;
  }

  async start(): Promise<void> {
    const words = ['run', '--json', '-c', 'sqlsync.yaml', '--listen', '127.0.0.1:0', '--token-file', 'token'];
    const command = new Command(words, { cwd: this.#scene.path(), env: this.#scene.env });
    this.#command = command;
    this.#startedAtMs = Date.now();
    this.#samples = [];
    await until(() => events(command, 'started').length > 0, command);
  }

  /** SIGKILL; resolves when it is gone. */
  async kill(): Promise<void> {
    const command = this.#command;
    this.#command = undefined;
    command?.child.kill('SIGKILL');
    await command?.done.then(({ stdout, stderr }) => this.#looks.hasNoSecret('the log', stdout + stderr));
  }

  /** Ends it as systemd does; it must end well. */
  async stop(): Promise<void> {
    const command = this.#running();
    this.#command = undefined;
    command.child.kill('SIGTERM');
    const { status, signal, stdout, stderr } = await command.done;
    this.#looks.hasNoSecret('the log', stdout + stderr);
    this.#looks.filesHaveNoSecret();
    assert.equal(status, 0, `the service ended with ${signal}: ${stderr}`);
  }

  async whileStopped(work: () => Promise<void>): Promise<void> {
    const { child } = this.#running();
    child.kill('SIGSTOP');
    this.#isStopped = true;
    try {
      await work();
    } finally {
      this.#isStopped = false;
      child.kill('SIGCONT');
    }
  }

  /** Resolves when the service has said that it took the file, or did not. */
  async reload(answer: 'reloaded' | 'failure'): Promise<void> {
    const command = this.#running();
    const counted = (): number =>
      events(command, answer).filter(({ code }) => answer === 'reloaded' || code === 'CONFIG_INVALID').length;
    const before = counted();
    command.child.kill('SIGHUP');
    await until(() => counted() > before, command);
  }

  async status(): Promise<Status> {
    const { stdout } = await sqlsync(['status', '--json'], { cwd: this.#scene.path(), env: this.#scene.env });
    return jsonLines(stdout).at(-1) as unknown as Status;
  }

  /** Waits until each database has been copied since; resolves with those that were not. */
  async untilCopied(origins: readonly Origin[], sinceMs: number, patienceMs: number): Promise<string[]> {
    for (;;) {
      const { targets } = await this.status();
      const missing = origins.filter(({ path, history, replica }) => {
        const target = targets.find((each) => each.origin === path);
        if (target?.kind === 'follow' && replica !== undefined)
          return !target.isFollowing || history.stateAt(replica) !== history.stateAt(path);
        return (target?.lastSuccessAtMs ?? 0) < sinceMs;
      });
      if (missing.length === 0 || Date.now() > sinceMs + patienceMs) return missing.map(({ path }) => path);
      await delay(2000);
    }
  }

  /** Looks at what it serves, and at its memory and descriptors. */
  async sample(): Promise<void> {
    const command = this.#running();
    const url = String(events(command, 'listening')[0]?.['url']);
    assert.equal((await fetch(new URL('/metrics', url))).status, 401, 'without the token');
    for (const path of ['/', '/metrics', '/api/status']) {
      const headers = { authorization: `Bearer ${SECRETS.token}` };
      const answer = await fetch(new URL(path, url), { headers });
      this.#looks.hasNoSecret(path, await answer.text());
      assert.equal(answer.status, 200, path);
    }
    this.#looks.filesHaveNoSecret();
    if (Date.now() - this.#startedAtMs < WARM_UP_MS) return;
    const { pid } = command.child;
    const rss = /VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1];
    this.#samples.push({
      megabytes: (Number(rss) * 1024) / MB,
      descriptors: readdirSync(`/proc/${pid}/fd`).length,
    });
  }

  /** What grew beyond bounds in the process that runs. */
  growths(): string[] {
    const [start, end] = this.#ends();
    return (['megabytes', 'descriptors'] as const).flatMap((what) =>
      end[what] > start[what] + MAX_GROWTH[what] ? [`${what} grew from ${start[what]} to ${end[what]}`] : [],
    );
  }

  figures(): string[] {
    const [start, end] = this.#ends();
    return [
      `RSS of the last service ${start.megabytes.toFixed(0)} to ${end.megabytes.toFixed(0)} MB, descriptors ${start.descriptors} to ${end.descriptors}, ${this.#samples.length} samples`,
    ];
  }

  /** The most of the first third, and the least of the last: copies come and go. */
  #ends(): [Sample, Sample] {
    const third = Math.max(1, Math.floor(this.#samples.length / 3));
    const of = (pick: (...values: number[]) => number, samples: readonly Sample[]): Sample => ({
      megabytes: pick(...samples.map(({ megabytes }) => megabytes)),
      descriptors: pick(...samples.map(({ descriptors }) => descriptors)),
    });
    return [of(Math.max, this.#samples.slice(0, third)), of(Math.min, this.#samples.slice(-third))];
  }

  #running(): Command {
    assert.ok(this.#command !== undefined, 'no service runs');
    return this.#command;
  }
}
