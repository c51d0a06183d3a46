/**
 * The thread of a coordinator that has other members (see local-coordinator.ts). It makes its socket, reports that,
 * learns how many members will come over, and ends on request.
 */
import assert from 'node:assert/strict';
import { parentPort, workerData } from 'node:worker_threads';
import { Coordinator } from './coordinator.ts';
import { QueueSocket } from './queue-socket.ts';

export interface ThreadData {
  readonly databasePath: string;
  readonly returnMs: number;
}

export type ThreadRequest = { type: 'expect'; members: number } | { type: 'stop' };

const port = parentPort;
assert(port !== null, 'this is a thread, not a program');
const { databasePath, returnMs } = workerData as ThreadData;
const queueSocket = new QueueSocket(databasePath);
const coordinator = new Coordinator(queueSocket, { returnMs, onFailure: () => process.exit(1) });

port.on('message', (request: ThreadRequest) => {
  if (request.type === 'expect') return coordinator.expect(request.members);
  coordinator.close();
  queueSocket.close();
  port.close();
});
port.postMessage('listening');
