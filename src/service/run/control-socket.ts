import { chmodSync, rmSync } from 'node:fs';
import { once } from 'node:events';
import { connect, createServer } from 'node:net';
import type { Server, Socket } from 'node:net';
import { join } from 'node:path';
import { SqlsyncError, sanitizeLine, systemErrorCode } from '../../errors.ts';
import { SOCKET_FILE } from '../state/state.ts';
import type { ServiceLife, Status } from '../state/judge.ts';

/** How long a name the system allows for a socket, in bytes. */
const NAME_MAX = 107;

/** How long a service may take to answer, in milliseconds. */
const ANSWER_MS = 10_000;

/** More clients than one user has. */
const MAX_CONNECTIONS = 100;

/** A server, and the end of it and of all its connections. */
export interface StatusServer {
  /** Never rejects. */
  close(): Promise<void>;
}

/**
 * Answers each connection with the status, as JSON, and ends it. The caller holds the lock of the folder, so a socket
 * that is there belongs to no service. Throws the system's errors, and USAGE for a folder with a name that is too long.
 */
export async function serveStatus(
  folder: string,
  status: () => Status,
  onWarning: (text: string) => void,
): Promise<StatusServer> {
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
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket);
    socket.on('error', () => {});
    socket.once('close', () => sockets.delete(socket));
    // A client that does not read, or does not close, must not keep the service from ending.
    socket.setTimeout(ANSWER_MS, () => socket.destroy());
    socket.end(JSON.stringify(status()));
  });
  server.maxConnections = MAX_CONNECTIONS;
  // No one else may connect, not even before the mode is set.
  const mask = process.umask(0o077);
  server.listen(path);
  process.umask(mask);
  await once(server, 'listening');
  chmodSync(path, 0o600);
  server.on('error', (error) => onWarning(`The socket of the status failed: ${error.message}`));
  return { close: () => closed(server, () => sockets.forEach((socket) => socket.destroy())) };
}

/** Stops a server and ends its connections by `endAll`. Never rejects. */
export async function closed(server: Server, endAll: () => void): Promise<void> {
  if (!server.listening) return;
  const done = once(server, 'close');
  server.close();
  endAll();
  await done;
}

/** The status that the service of this folder gives, or why it gives none. */
export async function askStatus(folder: string): Promise<Status | Exclude<ServiceLife, 'runs'>> {
  const socket = connect(join(folder, SOCKET_FILE));
  try {
    socket.setTimeout(ANSWER_MS, () => socket.destroy(new Error('no answer')));
    const chunks: Buffer[] = [];
    for await (const chunk of socket) chunks.push(chunk as Buffer);
    return JSON.parse(Buffer.concat(chunks).toString('utf8')) as Status;
  } catch (error) {
    // A socket without a process is what a killed service leaves.
    return ['ENOENT', 'ECONNREFUSED'].includes(systemErrorCode(error) ?? '') ? 'none' : 'silent';
  } finally {
    socket.destroy();
  }
}
