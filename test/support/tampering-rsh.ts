/**
 * A remote shell for `--rsh`, `node tampering-rsh.ts TYPES host sqlsync agent`, whose agent lies: it flips the first bit
 * of the first message of each of these types (`hashes,root`). The agent itself is real.
 */
import { spawn } from 'node:child_process';
import { crc32 } from 'node:zlib';
import { FrameDecoder } from '../../protocol/decode.ts';
import { FrameEncoder } from '../../protocol/encode.ts';
import type { Message } from '../../protocol/messages.ts';
import { PREAMBLE } from '../../protocol/version.ts';
import { commandPath } from '../../src/sync/program.ts';
import { encodeFrame } from './frames.ts';

const types = new Set((process.argv[2] ?? '').split(','));
const agent = spawn(process.execPath, [commandPath(), 'agent'], { stdio: ['pipe', 'pipe', 'inherit'] });
process.stdin.pipe(agent.stdin);

const decoder = new FrameDecoder(crc32);
const encoder = new FrameEncoder(crc32);
process.stdout.write(PREAMBLE);
agent.stdout.on('data', (bytes: Uint8Array) => {
  decoder.push(bytes);
  for (let next = decoder.next(); next !== undefined; next = decoder.next()) {
    process.stdout.write(encodeFrame(encoder, types.delete(next.type) ? flipped(next) : next));
  }
});
agent.on('close', (status) => process.exit(status ?? 1));

function flipped(message: Message): Message {
  if (message.type === 'hashes') return { ...message, data: withFlippedBit(message.data) };
  if (message.type === 'root') return { ...message, hash: withFlippedBit(message.hash) };
  return message;
}

function withFlippedBit(bytes: Uint8Array): Uint8Array {
  const copy = new Uint8Array(bytes);
  copy[0] = (copy[0] ?? 0) ^ 1;
  return copy;
}
