/** A thread that should read a store elsewhere, and dies at its first order. */
import { workerData } from 'node:worker_threads';
import { CELLS } from '../../src/backup/backends/remote/read-thread-messages.ts';
import type { ReadThreadStart } from '../../src/backup/backends/remote/read-thread-messages.ts';
import { ownThreadNumber } from '../../src/sqlite/thread-life.ts';

const { port, shared } = workerData as ReadThreadStart;
Atomics.store(new Int32Array(shared), CELLS.thread, ownThreadNumber());
port.once('message', () => process.exit(1));
