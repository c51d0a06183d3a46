import type { Socket } from 'node:net';
import { connect } from 'node:net';
import { QueueSocket } from './queue-socket.ts';
import { TextReader } from './texts.ts';
import { encodeFrame, FrameReader, REPLIES, REQUESTS, WIRE_VERSION } from './wire.ts';
import type { Frame, Reply } from './wire.ts';

/** A process whose event loop is busy for longer is left out. */
const PATIENCE_MS = 300;

/**
 * What the processes in the queue of a database say of themselves, a text each; empty if there is no queue, or if this
 * user may not use it. Takes no part in the queue, and no lock. Never rejects.
 */
export async function observeQueue(
  databasePath: string,
  patienceMs: number = PATIENCE_MS,
): Promise<string[]> {
  let socket: Socket;
  try {
    const queueSocket = new QueueSocket(databasePath);
    if (queueSocket.state !== 'socket') return [];
    socket = queueSocket.connect((path) => connect({ path }));
  } catch {
    return [];
  }
  const readers = new Map<number, TextReader>();
  const texts: string[] = [];
  const { promise, resolve } = Promise.withResolvers<void>();
  const timer = setTimeout(() => socket.destroy(), patienceMs);
  const frames = new FrameReader<Reply>(REPLIES);
  socket.once('connect', () => socket.write(encodeFrame(REQUESTS.observe, WIRE_VERSION)));
  socket.on('data', (chunk: Buffer) => {
    const read = frames.read(chunk);
    if (read?.every((frame) => take(frame, readers, texts)) !== true) socket.destroy();
  });
  socket.on('error', () => socket.destroy());
  // The coordinator ends it when all have answered.
  socket.once('close', resolve);
  await promise;
  clearTimeout(timer);
  return texts;
}

/** Returns false for a frame that no coordinator sends to an observer. */
function take(frame: Frame<Reply>, readers: Map<number, TextReader>, texts: string[]): boolean {
  if (frame.type !== 'told') return false;
  let reader = readers.get(frame.number);
  if (reader === undefined) readers.set(frame.number, (reader = new TextReader()));
  try {
    const text = reader.take(frame);
    if (text === undefined) return true;
    readers.delete(frame.number);
    if (text !== '') texts.push(text);
    return true;
  } catch {
    return false;
  }
}
