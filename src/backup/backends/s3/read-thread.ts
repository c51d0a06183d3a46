/** The thread that reads a store in S3 for one that waits: see remote-reader.ts. */
import { workerData } from 'node:worker_threads';
import { errorToData } from '../../../errors.ts';
import { ownThreadNumber } from '../../../sqlite/thread-life.ts';
import { CELLS } from './read-thread-messages.ts';
import type { ReadThreadStart, ToRead, WasRead } from './read-thread-messages.ts';
import { noRequests, requestCounts } from './request-counts.ts';
import { S3Files } from './s3-files.ts';

const { place, port, shared } = workerData as ReadThreadStart;
const cells = new Int32Array(shared);
Atomics.store(cells, CELLS.thread, ownThreadNumber());
const files = new S3Files(place);

port.on('message', ({ id, name, range }: ToRead) => {
  files.get(name, range).then(
    (bytes) => answer({ id, bytes, requests: takeRequests() }, [bytes.buffer as ArrayBuffer]),
    (error: unknown) => answer({ id, error: errorToData(error), requests: takeRequests() }, []),
  );
});

function answer(message: WasRead, transfer: readonly ArrayBuffer[]): void {
  port.postMessage(message, [...transfer]);
  Atomics.add(cells, CELLS.done, 1);
  Atomics.notify(cells, CELLS.done);
}

function takeRequests(): WasRead['requests'] {
  const requests = { ...requestCounts };
  Object.assign(requestCounts, noRequests());
  return requests;
}
