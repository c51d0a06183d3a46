import assert from 'node:assert/strict';
import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import type { TestContext } from 'node:test';
import { readConfig } from '../../src/service/config/read-config.ts';
import type { ServiceConfig } from '../../src/service/config/read-config.ts';
import { JobLister } from '../../src/service/jobs/job-list.ts';
import type { Job } from '../../src/service/jobs/job.ts';
import { TargetStates } from '../../src/service/run/target-states.ts';
import { loadState, stateFolder } from '../../src/service/state/state.ts';
import type { TargetState } from '../../src/service/state/state.ts';
import { tempDir } from '../support/compare.ts';
import '../support/environment.ts';

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
const NOW = new Date(2026, 10, 20, 12, 0).getTime();
const THREE = new Date(2026, 10, 21, 3, 0).getTime();
const RESULT = { bytes: 1, pagesChanged: 1, durationMs: 1, sizeBytes: 4096, snapshot: undefined };

/** One target in the memory of services that start one after another. */
class Memory {
  readonly folder: string;
  readonly warnings: string[] = [];
  states: TargetStates;
  job: Job;
  config: ServiceConfig;

  constructor(t: TestContext, schedule: string, more = '') {
    this.folder = tempDir(t);
    this.config = this.configure(schedule, more);
    [this.states, this.job] = this.#open(NOW);
  }

  configure(schedule: string, more = ''): ServiceConfig {
    const file = join(this.folder, 'c.yaml');
    const text = `spread: 0\ndatabases: [{ path: /a.db, schedule: '${schedule}', ${more} targets: [{ replica: /b.db }] }]\n`;
    writeFileSync(file, text);
    this.config = readConfig(file);
    return this.config;
  }

  #open(atMs: number): [TargetStates, Job] {
    const states = new TargetStates(join(this.folder, 'state'), this.config, atMs, (why) =>
      this.warnings.push(why),
    );
    return [states, this.#take(states, atMs)];
  }

  #take(states: TargetStates, atMs: number): Job {
    const list = new JobLister().list(this.config, states.memory);
    states.take(list, this.config, atMs);
    const [job] = list.jobs;
    assert.ok(job !== undefined);
    return job;
  }

  take(atMs: number): void {
    this.job = this.#take(this.states, atMs);
  }

  copied(atMs: number): void {
    this.states.started(this.job.id, atMs);
    this.states.succeeded(this.job, RESULT, atMs);
  }

  /** `kill -9`, or a stop, and a start. */
  restart(atMs: number, { isKilled = false } = {}): void {
    if (isKilled) this.states.save();
    else this.states.ended();
    this.open(atMs);
  }

  open(atMs: number): void {
    [this.states, this.job] = this.#open(atMs);
  }

  get state(): TargetState {
    const state = this.states.get(this.job.id);
    assert.ok(state !== undefined);
    return state;
  }
}

describe('the time that a copy is due', () => {
  test('a clock that was ahead and is put back leaves nothing due in the time that it was ahead', (t) => {
    for (const [schedule, latest] of [
      ['15m', NOW + 15 * MINUTE],
      ['0 3 * * *', THREE],
    ] as const) {
      const memory = new Memory(t, schedule);
      memory.copied(NOW + 3650 * 24 * HOUR);
      memory.take(NOW);
      assert.equal(memory.state.dueAtMs, latest, schedule);
      memory.copied(NOW + 3650 * 24 * HOUR);
      memory.restart(NOW);
      assert.equal(memory.state.dueAtMs, latest, `${schedule} after a restart`);
    }
  });

  test('a proof from the future is none', (t) => {
    const memory = new Memory(t, '15m', 'verify: daily,');
    memory.states.proving(memory.job.id, NOW + 24 * HOUR);
    memory.states.proven(memory.job.id, NOW + 24 * HOUR);
    memory.take(NOW);
    assert.deepEqual([memory.state.provenAtMs, memory.state.proofTriedAtMs], [undefined, undefined]);
  });

  test('a copy that was cut off stays as late as it was, by a stop as by a kill', (t) => {
    const memory = new Memory(t, '15m');
    memory.copied(NOW);
    const dueAtMs = memory.state.dueAtMs;
    for (const isKilled of [true, false, true]) {
      memory.states.started(memory.job.id, NOW + HOUR);
      if (!isKilled) memory.states.cutOff(memory.job.id);
      memory.restart(NOW + 2 * HOUR, { isKilled });
      assert.deepEqual([memory.state.dueAtMs, memory.state.runningSinceMs], [dueAtMs, undefined]);
    }
  });

  test('another schedule begins anew, and the same one does not', (t) => {
    const memory = new Memory(t, '15m');
    memory.copied(NOW);
    memory.take(NOW + MINUTE);
    assert.equal(memory.state.dueAtMs, NOW + 15 * MINUTE);
    memory.configure('0 3 * * *');
    memory.take(NOW + MINUTE);
    assert.equal(memory.state.dueAtMs, THREE);
  });

  test('a copy of a schedule that ends when it should follow is due no more', (t) => {
    const memory = new Memory(t, '15m');
    memory.states.started(memory.job.id, NOW);
    memory.configure('follow');
    memory.take(NOW);
    memory.states.succeeded(memory.job, RESULT, NOW);
    assert.equal(memory.state.dueAtMs, undefined);
  });

  test('a copy that was made is not made again for what went wrong after it', (t) => {
    const memory = new Memory(t, '1h');
    memory.copied(NOW);
    memory.states.succeededWith(memory.job.id, new Error('the hook'), NOW);
    const { dueAtMs, successAtMs, failure } = memory.state;
    assert.deepEqual([dueAtMs, successAtMs, failure?.code], [NOW + HOUR, NOW, 'INTERNAL']);
    memory.copied(NOW + HOUR);
    assert.equal(memory.state.failure, undefined);
  });
});

describe('what is remembered', () => {
  test('a proof that failed does not count when nothing is to be proven any more', (t) => {
    const memory = new Memory(t, '15m', 'verify: daily,');
    memory.states.notProven(memory.job.id, new Error('x'), NOW);
    memory.take(NOW);
    assert.notEqual(memory.state.proofFailure, undefined);
    memory.configure('15m');
    memory.take(NOW);
    assert.equal(memory.state.proofFailure, undefined);
  });

  test('sizes are kept an hour apart, and the last one is the newest', (t) => {
    const memory = new Memory(t, '1s');
    for (let minute = 0; minute <= 300; minute++) {
      memory.states.started(memory.job.id, NOW + minute * MINUTE);
      memory.states.succeeded(memory.job, { ...RESULT, sizeBytes: 4096 * (minute + 1) }, NOW);
    }
    const sizes = memory.state.sizes.map(([atMs, bytes]) => [(atMs - NOW) / MINUTE, bytes / 4096]);
    assert.ok(sizes.length >= 5 && sizes.length <= 8, `${sizes.length} sizes`);
    assert.deepEqual(
      [sizes[0], sizes.at(-1)],
      [
        [0, 1],
        [300, 301],
      ],
    );
  });

  test('a broken file is put aside, and said to be broken', (t) => {
    const memory = new Memory(t, '15m');
    memory.copied(NOW);
    memory.states.ended();
    const file = join(memory.folder, 'state', 'state.json');
    for (const text of ['', '{"version":1', '{"version":1,"targets":null}', 'null']) {
      writeFileSync(file, text);
      assert.equal(loadState(join(memory.folder, 'state')), undefined);
      memory.open(NOW);
      assert.equal(readFileSync(`${file}.bad`, 'utf8'), text);
      assert.match(memory.warnings.pop() ?? '', /was put aside as state\.json\.bad/);
    }
  });

  test('nothing is written after the end: the folder may be another service’s', (t) => {
    const memory = new Memory(t, '15m');
    memory.states.ended();
    const file = join(memory.folder, 'state', 'state.json');
    rmSync(file);
    memory.states.reloaded();
    assert.equal(existsSync(file), false);
  });

  test('a configuration behind a link that is replaced keeps its state folder', (t) => {
    const folder = tempDir(t);
    const one = stateFolder(join(folder, 'c.yaml'), undefined);
    writeFileSync(join(folder, 'c.yaml'), '');
    assert.equal(stateFolder(join(folder, 'c.yaml'), undefined), one);
  });
});
