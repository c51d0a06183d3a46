import { chmodSync, rmSync } from 'node:fs';
import { once } from 'node:events';
import { connect, createServer } from 'node:net';
import type { Server } from 'node:net';
import { join } from 'node:path';
import { SqlsyncError, sanitizeLine } from '../../errors.ts';
import { SOCKET_FILE } from '../state/state.ts';
import type { Status } from '../state/judge.ts';

/** How long a name the system allows for a socket, in bytes. */
const NAME_MAX = 107;

/** How long a service may take to answer, in milliseconds. */
const ANSWER_MS = 10_000;

/**
 * Answers each connection with the status, as JSON, and ends it. The caller holds the lock of the folder, so a socket
 * that is there belongs to no service. Throws the system's errors, and USAGE for a folder with a name that is too long.
 */
export async function serveStatus(folder: string, status: () => Status): Promise<Server> {
  const path = join(folder, SOCKET_FILE);
  if (Buffer.byteLength(path) > NAME_MAX)
    throw new SqlsyncError(
      'USAGE',
      `${sanitizeLine(path)} is longer than the ${NAME_MAX} bytes that a socket may have`,
      {
        hint: 'Name a folder with a shorter path as `state` in the configuration.',
      },
    );
  rmSync(path, { force: true });
  const server = createServer((socket) => {
    socket.on('error', () => {});
    socket.end(JSON.stringify(status()));
  });
  // The folder is private, too: no one else can connect before the mode is set.
  server.listen(path);
  await once(server, 'listening');
  chmodSync(path, 0o600);
  return server;
}

/** The status that the service of this folder gives; undefined if none runs, or it does not answer. */
export async function askStatus(folder: string): Promise<Status | undefined> {
  const socket = connect(join(folder, SOCKET_FILE));
  try {
    socket.setTimeout(ANSWER_MS, () => socket.destroy(new Error('no answer')));
    const chunks: Buffer[] = [];
    for await (const chunk of socket) chunks.push(chunk as Buffer);
    return JSON.parse(Buffer.concat(chunks).toString('utf8')) as Status;
  } catch {
    return undefined;
  } finally {
    socket.destroy();
  }
}
