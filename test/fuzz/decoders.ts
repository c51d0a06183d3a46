import assert from 'node:assert/strict';
import { crc32 } from 'node:zlib';
import { Random } from '../../fixtures/random.ts';
import { FrameDecoder, ProtocolViolation } from '../../protocol/decode.ts';
import { FRAME_HEADER_BYTES, MAX_BODY_BYTES } from '../../protocol/limits.ts';
import type { Message } from '../../protocol/messages.ts';
import {
  decodeBatch,
  decodeWanted,
  DELTA_BASES,
  fromGaps,
  maxBatchBytes,
} from '../../protocol/page-batch.ts';
import { SqlsyncError } from '../../src/errors.ts';
import { decodeBatchBytes } from '../../src/sync/link/compression.ts';
import { PREAMBLE_BYTES } from '../protocol/oracle.ts';
import { looseFrame, mutateBytes, mutateFields } from './mutate.ts';

export interface DecoderFigures {
  messages: number;
  /** The number of refused messages, and of those that have another meaning now. */
  refused: number;
}

const PAGE_SIZES = [512, 4096, 65_536];

/**
 * Gives each of `count` mutated messages to the decoder of frames, in pieces of any size, and its results to
 * the decoders behind it. Fails if one throws anything but a violation of the protocol, or keeps more than a
 * frame.
 */
export function fuzzDecoders(corpus: readonly Message[], seed: number, count: number): DecoderFigures {
  const figures = { messages: 0, refused: 0 };
  for (let i = 0; i < count; i++) {
    const messageSeed = (seed + i) >>> 0;
    try {
      if (!decodeOne(corpus, new Random(messageSeed))) figures.refused++;
    } catch (error) {
      throw new Error(`decoders, seed ${messageSeed}: ${String(error)}`, { cause: error });
    }
    figures.messages++;
  }
  return figures;
}

/** False if the decoder refused it. */
function decodeOne(corpus: readonly Message[], random: Random): boolean {
  const message = random.pick(corpus);
  const mutated = random.chance(0.7) ? mutateFields(random, message) : message;
  const frame = looseFrame(mutated, 0);
  const bytes = mutated === message || random.chance(0.3) ? mutateBytes(random, frame) : frame;
  const decoder = new FrameDecoder(crc32);
  try {
    decoder.push(PREAMBLE_BYTES);
    for (let at = 0; at < bytes.length;) {
      const length = random.chance(0.5) ? bytes.length - at : random.integer(1, bytes.length - at);
      decoder.push(bytes.subarray(at, at + length));
      at += length;
      for (let next = decoder.next(); next !== undefined; next = decoder.next()) decodeInside(next, random);
      assert.ok(decoder.bufferedBytes <= FRAME_HEADER_BYTES + MAX_BODY_BYTES, 'more than a frame is kept');
    }
    return true;
  } catch (error) {
    if (error instanceof ProtocolViolation) return false;
    if (error instanceof SqlsyncError && error.code === 'PROTOCOL') return false;
    throw error;
  }
}

/** Goes on with the message as the agents do. */
function decodeInside(message: Message, random: Random): void {
  if (message.type === 'getPages') decodeWanted(message.pages, random.pick([1, 60, 2 ** 31 - 1]));
  if (message.type === 'getChildren') fromGaps(message.parents, random.pick([1, 4096]));
  if (message.type !== 'pages') return;
  const pageSize = random.pick(PAGE_SIZES);
  const wanted = Array.from({ length: random.integer(1, 40) }, (_, i) => ({
    pageNumber: i + 1,
    basis: random.pick(DELTA_BASES),
  }));
  const most = maxBatchBytes(pageSize, wanted.length);
  const batch = decodeBatchBytes(message, most);
  assert.ok(batch.length <= most, 'a batch of more bytes than are possible');
  assert.equal(decodeBatch(batch, pageSize, wanted).length, wanted.length);
}
