import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { setImmediate as nextTurn } from 'node:timers/promises';
import type { Admission, Turn } from '../../src/pool/admission-types.ts';
import { WriteJob } from '../../src/pool/write-job.ts';
import type { LineServer } from '../../src/pool/write-line.ts';
import { WriteLine } from '../../src/pool/write-line.ts';

/** A queue among processes whose other members are the test. */
class PlayedAdmission implements Admission {
  isCalm = true;
  entered = 0;
  left = 0;
  turn = { isOver: false, leave: (): void => void (this.left += 1) };
  #grant: ((turn: Turn) => void) | undefined;
  #refuse: ((error: Error) => void) | undefined;
  isAborted = false;

  enter(signal?: AbortSignal): Promise<Turn> {
    this.entered += 1;
    return new Promise((resolve, reject) => {
      this.#grant = resolve;
      this.#refuse = reject;
      signal?.addEventListener('abort', () => {
        this.isAborted = true;
        reject(signal.reason as Error);
      });
    });
  }

  async grant(): Promise<void> {
    this.turn = { ...this.turn, isOver: false };
    this.#grant?.(this.turn);
    await nextTurn();
  }

  async refuse(): Promise<void> {
    this.#refuse?.(new Error('no queue'));
    await nextTurn();
  }

  close(): Promise<void> {
    return Promise.resolve();
  }
}

/** Does each job at once, or refuses as busy. */
class PlayedServer implements LineServer {
  isTaken = false;
  served = 0;
  attempts = 0;
  isBusy = false;
  done: string[] = [];

  attempt(job: WriteJob): (() => void) | undefined {
    this.attempts += 1;
    if (this.isBusy) return undefined;
    return () => {
      this.served += 1;
      this.done.push(job.label);
      job.resolve(undefined);
    };
  }

  timedOut(label: string): Error {
    return new Error(`${label} timed out`);
  }

  emptied(): void {}
}

function played(): {
  admission: PlayedAdmission;
  server: PlayedServer;
  line: WriteLine;
  add: (label: string, signal?: AbortSignal) => Promise<unknown>;
} {
  const admission = new PlayedAdmission();
  const server = new PlayedServer();
  const line = new WriteLine(server, admission);
  const add = (label: string, signal?: AbortSignal): Promise<unknown> => {
    const job = new WriteJob(label, performance.now(), { statement: () => undefined }, {});
    const promise = job.join(performance.now() + 60_000, signal, () => line.remove(job));
    line.add(job);
    line.advance();
    return promise;
  };
  return { admission, server, line, add };
}

describe('the line of those who wait, and the queue among processes', () => {
  test('tries at once while it is calm, and queues only where others do', async () => {
    const { admission, server, add } = played();
    await add('calm');
    assert.equal(admission.entered, 0);
    admission.isCalm = false;
    const contended = add('contended');
    assert.deepEqual([server.attempts, admission.entered], [1, 1]);
    await admission.grant();
    await contended;
    assert.deepEqual(server.done, ['calm', 'contended']);
  });

  test('queues at the first refusal as busy, and retries with its turn', async () => {
    const { admission, server, add } = played();
    server.isBusy = true;
    const waiting = add('a');
    assert.deepEqual([server.attempts, admission.entered], [1, 1]);
    await nextTurn();
    assert.equal(server.attempts, 1, 'nobody tries without a turn');
    server.isBusy = false;
    await admission.grant();
    await waiting;
  });

  test('keeps its turn while work comes, and leaves it when a turn of the event loop brought none', async () => {
    const { admission, add } = played();
    admission.isCalm = false;
    const first = add('0');
    await admission.grant();
    await first;
    for (const label of ['1', '2', '3']) await add(label);
    assert.deepEqual([admission.entered, admission.left], [1, 0]);
    for (let turns = 0; turns < 5; turns += 1) await nextTurn();
    assert.deepEqual([admission.entered, admission.left], [1, 1]);
  });

  test('leaves a turn that is over before the next job, and queues again', async () => {
    const { admission, server, line, add } = played();
    admission.isCalm = false;
    const first = add('first');
    await admission.grant();
    await first;
    const early = add('early');
    await early;
    admission.turn.isOver = true;
    assert.equal(line.isFree, false);
    const second = add('second');
    assert.deepEqual([admission.left, admission.entered], [1, 2]);
    assert.deepEqual(server.done, ['first', 'early']);
    await admission.grant();
    await second;
  });

  test('leaves the queue when nobody waits any more', async () => {
    const { admission, add } = played();
    admission.isCalm = false;
    const abort = new AbortController();
    const waiting = add('a', abort.signal);
    abort.abort();
    await assert.rejects(waiting, { code: 'ABORTED' });
    assert.ok(admission.isAborted);
    await nextTurn();
    const next = add('b');
    await admission.grant();
    await next;
  });

  test('goes on alone where there is no queue', async () => {
    const { admission, server, add } = played();
    admission.isCalm = false;
    const waiting = add('a');
    await admission.refuse();
    await waiting;
    assert.deepEqual(server.done, ['a']);
  });
});
