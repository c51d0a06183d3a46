/** A worker thread of the read pool: one connection that reads, and one query at a time. See read-messages.ts. */
import assert from 'node:assert/strict';
import { parentPort, workerData } from 'node:worker_threads';
import { errorToData } from '../../errors.ts';
import { Reader } from './read-connection.ts';
import type { RowsReply, WorkerOptions, WorkerReply, WorkerRequest } from './read-messages.ts';

/** A chunk ends at whichever of these limits comes first. */
const CHUNK_ROWS = 500;
const CHUNK_BYTES = 256 * 1024;

assert(parentPort !== null, 'this file is the program of a worker thread');
const port = parentPort;
const { path, options } = workerData as WorkerOptions;

let reader: Reader | undefined;
/** The result being read, and how many chunks the caller still takes. */
let cursor: { readonly id: number; readonly rows: IterableIterator<unknown>; credit: number } | undefined;

port.on('message', (request: WorkerRequest) => {
  switch (request.type) {
    case 'query':
      attempt(request.id, () => begin(request));
      break;
    case 'more':
      if (cursor?.id === request.id) {
        cursor.credit += 1;
        attempt(request.id, sendChunks);
      }
      break;
    case 'stop':
      stop();
      send({ type: 'stopped', id: request.id });
      break;
    case 'close':
      stop();
      reader?.close();
      port.close();
      break;
    default:
      throw new Error(`an unknown request: ${JSON.stringify(request satisfies never)}`);
  }
});

function attempt(id: number, work: () => void): void {
  try {
    work();
  } catch (error) {
    stop();
    send({ type: 'failed', id, error: errorToData(error) });
  }
}

function begin(query: Extract<WorkerRequest, { type: 'query' }>): void {
  const { id, sql, params, mode, credit } = query;
  reader ??= new Reader(path, options);
  if (mode === 'get') {
    const row = reader.get(sql, params);
    const rows = row === undefined ? [] : [row];
    send({ type: 'rows', id, rows, hasBlobs: measure(row ?? {}).hasBlobs, isDone: true });
    return;
  }
  const rows = mode === 'values' ? reader.iterateValues(sql, params) : reader.iterate(sql, params);
  cursor = { id, rows, credit };
  sendChunks();
}

function sendChunks(): void {
  while (cursor !== undefined && cursor.credit > 0) {
    cursor.credit -= 1;
    const reply = nextChunk(cursor.id, cursor.rows);
    if (reply.isDone) stop();
    send(reply);
  }
}

function nextChunk(id: number, source: IterableIterator<unknown>): RowsReply {
  const rows: unknown[] = [];
  let hasBlobs = false;
  for (let bytes = 0; rows.length < CHUNK_ROWS && bytes < CHUNK_BYTES;) {
    const result = source.next();
    if (result.done === true) return { type: 'rows', id, rows, hasBlobs, isDone: true };
    rows.push(result.value);
    const size = measure(result.value as object);
    bytes += size.bytes;
    hasBlobs ||= size.hasBlobs;
  }
  return { type: 'rows', id, rows, hasBlobs, isDone: false };
}

/** The approximate size of a row. */
function measure(row: object): { bytes: number; hasBlobs: boolean } {
  let bytes = 0;
  let hasBlobs = false;
  for (const value of Object.values(row) as unknown[]) {
    if (typeof value === 'string') bytes += value.length;
    else if (value instanceof Uint8Array) {
      bytes += value.byteLength;
      hasBlobs = true;
    }
  }
  return { bytes, hasBlobs };
}

function stop(): void {
  if (cursor !== undefined) reader?.stop(cursor.rows);
  cursor = undefined;
}

function send(reply: WorkerReply): void {
  port.postMessage(reply);
}
