import { workerData } from 'node:worker_threads';
import { errorToData } from '../../../errors.ts';
import { ownThreadNumber } from '../../../sqlite/thread-life.ts';
import type { Backend } from '../backend.ts';
import { CELLS, NUMBER_UNKNOWN } from './read-thread-messages.ts';
import type { ReadThreadStart, RemotePlace, ToRead, WasRead } from './read-thread-messages.ts';
import { noRequests, requestCounts } from './request-counts.ts';

/** Reads a store elsewhere for a thread that waits: see remote-reader.ts. Runs in a thread of its own. */
export function serveReads(open: (place: RemotePlace) => Pick<Backend, 'get'>): void {
  const { place, port, shared } = workerData as ReadThreadStart;
  const cells = new Int32Array(shared);
  const answer = (message: WasRead, transfer: readonly ArrayBuffer[]): void => {
    port.postMessage(message, [...transfer]);
    Atomics.add(cells, CELLS.done, 1);
    Atomics.notify(cells, CELLS.done);
  };
  Atomics.store(cells, CELLS.thread, ownThreadNumber() || NUMBER_UNKNOWN);
  Atomics.notify(cells, CELLS.thread);
  const files = open(place);
  port.on('message', ({ id, name, range }: ToRead) => {
    files.get(name, range).then(
      (bytes) => answer({ id, bytes, requests: takeRequests() }, [bytes.buffer as ArrayBuffer]),
      (error: unknown) => answer({ id, error: errorToData(error), requests: takeRequests() }, []),
    );
  });
}

function takeRequests(): WasRead['requests'] {
  const requests = { ...requestCounts };
  Object.assign(requestCounts, noRequests());
  return requests;
}
