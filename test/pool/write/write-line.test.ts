import assert from 'node:assert/strict';
import { AsyncLocalStorage } from 'node:async_hooks';
import { describe, test } from 'node:test';
import { setImmediate as nextTurn } from 'node:timers/promises';
import type { Admission, Turn } from '../../../src/pool/admission/types.ts';
import { TURN_MS } from '../../../src/pool/event-loop.ts';
import { WriteJob } from '../../../src/pool/write/write-job.ts';
import type { JobRunner as LineServer } from '../../../src/pool/write/write-line.ts';
import { WriteLine } from '../../../src/pool/write/write-line.ts';

/** A queue of processes whose other members are played by the test. */
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

  wrote(): void {}

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

/** Does each job at once, or refuses it as busy. */
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
  add: (label: string, signal?: AbortSignal, deadlineMs?: number) => Promise<unknown>;
} {
  const admission = new PlayedAdmission();
  const server = new PlayedServer();
  const line = new WriteLine(server, admission);
  const add = (label: string, signal?: AbortSignal, deadlineMs = 60_000): Promise<unknown> => {
    const job = new WriteJob(label, performance.now(), {});
    const wish = {
      work: { statement: () => undefined },
      deadlineMs: performance.now() + deadlineMs,
      signal,
      inContext: AsyncLocalStorage.snapshot(),
    };
    const promise = job.join(wish, () => line.remove(job));
    line.add(job);
    line.advance();
    return promise;
  };
  return { admission, server, line, add };
}

describe('the line of waiting writes, and the queue of processes', () => {
  test('the line tries at once while the queue is calm, and queues only if others do', async () => {
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

  test('the line queues at the first refusal as busy, and retries with its turn', async () => {
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

  test('the line keeps its turn while work comes, and leaves it when a turn of the event loop brought none', async () => {
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

  test('the line leaves a turn that is over before the next job, and queues again', async () => {
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

  test('the line leaves the queue when nobody waits any more', async () => {
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

  test('the line goes on alone without a queue', async () => {
    const { admission, server, add } = played();
    admission.isCalm = false;
    const waiting = add('a');
    await admission.refuse();
    await waiting;
    assert.deepEqual(server.done, ['a']);
  });
});

describe('very many writes that give up at the same moment', () => {
  /** The waiting writes of a busy writer; informing each of them lasts as long as a turn may. */
  function lateWriters(): ReturnType<typeof played> & { onGivingUp: (listener: () => void) => void } {
    const all = played();
    let told = (): void => undefined;
    all.server.isTaken = true;
    all.server.timedOut = (label) => {
      told();
      for (const endMs = performance.now() + TURN_MS; performance.now() <= endMs;);
      return new Error(`${label} timed out`);
    };
    return { ...all, onGivingUp: (listener) => (told = listener) };
  }

  test('very many writes give up in portions, between which the event loop turns', async () => {
    const { line, add, onGivingUp } = lateWriters();
    const perTurn = [0];
    onGivingUp(() => (perTurn[perTurn.length - 1] = (perTurn.at(-1) ?? 0) + 1));
    const outcomes = Promise.allSettled(Array.from({ length: 8 }, (_, n) => add(String(n), undefined, 0)));
    while (line.length > 0) {
      await nextTurn();
      perTurn.push(0);
    }
    assert.ok((await outcomes).every(({ status }) => status === 'rejected'));
    assert.ok(Math.max(...perTurn) <= 2, `in each turn: ${perTurn.join(' ')}`);
  });

  test('very many writes give up in portions as well if they wait for one and the same job', async () => {
    const { server, line, onGivingUp } = lateWriters();
    const perTurn = [0];
    onGivingUp(() => (perTurn[perTurn.length - 1] = (perTurn.at(-1) ?? 0) + 1));
    const job = new WriteJob('one', performance.now(), {});
    const wish = {
      work: { statement: () => undefined },
      deadlineMs: performance.now(),
      signal: undefined,
      inContext: AsyncLocalStorage.snapshot(),
    };
    const joined = Array.from({ length: 8 }, () => job.join(wish, () => assert.fail('no signal')));
    const outcomes = Promise.allSettled(joined);
    line.add(job);
    while (line.length > 0) {
      await nextTurn();
      perTurn.push(0);
    }
    assert.ok((await outcomes).every(({ status }) => status === 'rejected'));
    assert.ok(Math.max(...perTurn) <= 2, `in each turn: ${perTurn.join(' ')}`);
    assert.equal(server.attempts, 0);
  });

  test('writes that give up do not take with them the one whose turn came between two portions', async () => {
    const { server, line, add, onGivingUp } = lateWriters();
    let begun: WriteJob | undefined;
    server.attempt = (job) => () => {
      job.begin();
      server.isTaken = true;
      begun = job;
    };
    onGivingUp(() => {
      onGivingUp(() => undefined);
      setImmediate(() => {
        server.isTaken = false;
        line.advance();
      });
    });
    const outcomes = Promise.allSettled(Array.from({ length: 8 }, (_, n) => add(String(n), undefined, 0)));
    while (line.length > 0) await nextTurn();
    begun?.resolve('done');
    const done = (await outcomes).map((outcome) => outcome.status === 'fulfilled' && outcome.value);
    assert.deepEqual(done.filter(Boolean), ['done']);
    assert.equal(done.indexOf('done'), Number(begun?.label));
  });
});
