/**
 * The other end of `QueueProcess` (admission-process.ts): a process with a database's queue, which does what the test
 * asks, one request after another; `enter` answers twice, when it waits and when it has the turn.
 */
import { setTimeout as delay } from 'node:timers/promises';
import type { Admission, Turn } from '../../../src/pool/admission/types.ts';
import { openAdmission } from '../../../src/pool/admission/admission.ts';
import { openRaw } from '../../../src/sqlite/binding.ts';
import { isBusy } from '../../../src/sqlite/busy.ts';
import { databaseUri } from '../../../src/sqlite/database-uri.ts';

export type ChildRequest =
  | { type: 'open'; path: string }
  | { type: 'enter' | 'leave' | 'isCalm' | 'isOver' | 'close' | 'forget' | 'block' }
  | { type: 'write'; path: string; transactions: number };

export interface ChildReply {
  readonly type: 'done' | 'turn' | 'failed';
  readonly value?: unknown;
}

let admission: Admission;
let turn: Turn | undefined;
const reply = (type: ChildReply['type'], value?: unknown): void =>
  void process.send?.({ type, value } satisfies ChildReply);

process.on('message', (request: ChildRequest) => {
  void answer(request).then(
    (value) => reply('done', value),
    (error: unknown) => reply('failed', String((error as { code?: string }).code ?? error)),
  );
});

async function answer(request: ChildRequest): Promise<unknown> {
  switch (request.type) {
    case 'open':
      admission = openAdmission(request.path);
      return undefined;
    case 'enter':
      void waitForTurn();
      return undefined;
    case 'leave':
      turn?.leave();
      turn = undefined;
      return undefined;
    case 'isCalm':
      return admission.isCalm;
    case 'isOver':
      return turn?.isOver;
    case 'write':
      return await write(request.path, request.transactions);
    case 'close':
      return await admission.close();
    case 'block':
      // From after the answer on, until it is killed.
      setTimeout(() => Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0), 5);
      return undefined;
    case 'forget':
      // Ends as a program does that is finished: without closing anything.
      setImmediate(() => process.disconnect());
      return undefined;
  }
}

async function waitForTurn(): Promise<void> {
  turn = await admission.enter();
  // A turn that it gave itself, since the coordinator was silent for too long.
  reply('turn', turn.constructor.name === 'OwnTurn');
}

/**
 * As the write pool does it: in a calm time it tries; else, or after a busy try, it queues. Returns how often
 * it entered.
 */
async function write(path: string, transactions: number): Promise<number> {
  const database = openRaw(databaseUri(path, { mode: 'rw' }), { timeout: 0 });
  let enters = 0;
  try {
    for (let done = 0; done < transactions;) {
      if (turn === undefined && !admission.isCalm) {
        turn = await admission.enter();
        enters++;
      }
      try {
        database.exec(`BEGIN IMMEDIATE; INSERT INTO t VALUES (${process.pid}); COMMIT`);
        done++;
        turn?.leave();
        turn = undefined;
      } catch (error) {
        if (!isBusy(error)) throw error;
        if (database.inTransaction) database.exec('ROLLBACK');
        if (turn === undefined) enters++;
        turn ??= await admission.enter();
        await delay(1);
      }
    }
  } finally {
    database.close();
  }
  return enters;
}
