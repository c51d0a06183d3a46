import { closeSync, fdatasync, openSync } from 'node:fs';
import { workerData } from 'node:worker_threads';
import { callWriter } from './page-writer.ts';
import type { WriterCalls } from './page-writer.ts';
import { ReplicaWriter } from './replica-writer.ts';
import { ownThreadNumber } from '../thread-life.ts';
import { errorToData } from '../../errors.ts';
import type { ErrorData } from '../../errors.ts';
import type { FromWriter, ThreadStart, ToWriter } from './writer-messages.ts';

/** After this many written bytes, asks the disk to take them, so that the commit's sync need not wait for all. */
const SYNC_BYTES = 32 * 1024 * 1024;

/** The thread of a {@link ThreadPageWriter}: opens the writer and does what its messages ask, one after another. */
const { path, pageSize, options, port, answered, slots, slotBytes } = workerData as ThreadStart;

let writer: ReplicaWriter | undefined;
/** The first error of a page: every later request fails with it, until the transaction is rolled back. */
let broken: ErrorData | undefined;
let unsyncedBytes = 0;
let wal: number | undefined;
let syncing = false;

port.on('message', (message: ToWriter) => {
  switch (message.kind) {
    case 'pages':
      return takePages(message.numbers, message.slot);
    case 'call':
      return send(attempt(message.method, message.parameters));
    case 'read':
      send(read(message.page));
      Atomics.store(new Int32Array(answered), 0, 1);
      Atomics.notify(new Int32Array(answered), 0);
  }
});

Atomics.store(new Int32Array(answered), 1, ownThreadNumber());
try {
  writer = new ReplicaWriter(path, options);
  send({ kind: 'open' });
} catch (error) {
  send(failed(errorToData(error)));
}

function send(message: FromWriter): void {
  port.postMessage(message);
}

function failed(error: ErrorData): FromWriter {
  return { kind: 'failed', error };
}

function takePages(numbers: readonly number[], slot: number): void {
  try {
    if (broken === undefined) write(numbers, slot * slotBytes);
  } catch (error) {
    broken = errorToData(error);
  }
  send({ kind: 'taken', slot, failure: broken });
}

function write(numbers: readonly number[], start: number): void {
  for (const [i, page] of numbers.entries()) {
    open().writePage(page, new Uint8Array(slots, start + i * pageSize, pageSize));
  }
  unsyncedBytes += numbers.length * pageSize;
  if (options.wal) syncWal();
}

function attempt(method: keyof WriterCalls, parameters: readonly unknown[]): FromWriter {
  // A broken transaction can still be rolled back.
  if (broken !== undefined && method !== 'rollback' && method !== 'close') return failed(broken);
  try {
    if (method === 'close') closeWal();
    const value = callWriter(open(), method, parameters as Parameters<WriterCalls[typeof method]>);
    if (method === 'rollback') broken = undefined;
    return { kind: 'result', value };
  } catch (error) {
    return failed(errorToData(error));
  }
}

function read(page: number): FromWriter {
  if (broken !== undefined) return failed(broken);
  try {
    return { kind: 'page', bytes: open().readPage(page) };
  } catch (error) {
    return failed(errorToData(error));
  }
}

function open(): ReplicaWriter {
  if (writer === undefined) throw new Error('the writer is not open');
  return writer;
}

/**
 * Asks the disk to write the WAL while more pages come. Only a head start: the commit's sync decides whether it worked.
 * The -wal file carries no locks, so it may be opened and closed beside SQLite's own descriptor.
 */
function syncWal(): void {
  if (syncing || unsyncedBytes < SYNC_BYTES) return;
  try {
    wal ??= openSync(`${path}-wal`, 'r');
  } catch {
    unsyncedBytes = -Infinity; // not there or not readable: the commit waits for all of it
    return;
  }
  syncing = true;
  unsyncedBytes = 0;
  const descriptor = wal;
  fdatasync(descriptor, () => {
    syncing = false;
    if (wal !== descriptor) closeSync(descriptor);
  });
}

function closeWal(): void {
  if (wal !== undefined && !syncing) closeSync(wal);
  wal = undefined;
}
