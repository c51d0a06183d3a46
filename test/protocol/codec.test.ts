import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { FrameDecoder, ProtocolViolation } from '../../protocol/decode.ts';
import { FrameEncoder, message } from '../../protocol/encode.ts';
import { FRAME_HEADER_BYTES, MAX_BODY_BYTES, MAX_TEXT_BYTES, MAX_TEXTS } from '../../protocol/limits.ts';
import { maxBodyBytes, MESSAGES } from '../../protocol/messages.ts';
import type { Message } from '../../protocol/messages.ts';
import { isDeepStrictEqual } from 'node:util';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { crc32 } from 'node:zlib';
import {
  concat,
  chunkingArbitrary,
  DEFINITIONS,
  messageArbitrary,
  naiveEncode,
  PREAMBLE_BYTES,
  rechunk,
} from './oracle.ts';
import { Random } from '../../fixtures/random.ts';
import { detached, encodeFrame } from '../support/frames.ts';

// On failure fast-check prints the seed and the path; give them as { seed, path } to repeat it.
const messages = fc.array(messageArbitrary, { minLength: 1, maxLength: 6 });

describe('the codec', () => {
  test('the codec writes the bytes that a naive encoder writes', () => {
    fc.assert(
      fc.property(messages, (sent) => {
        const encoder = new FrameEncoder(crc32);
        for (const [sequence, one] of sent.entries())
          assert.deepEqual(new Uint8Array(encodeFrame(encoder, one)), naiveEncode(one, sequence));
      }),
      { numRuns: 300 },
    );
  });

  test('the codec reads the frames of a naive encoder, in pieces of any size, and buffers at most one frame', () => {
    fc.assert(
      fc.property(messages, chunkingArbitrary, (sent, chunking) => {
        const frames = sent.map(naiveEncode);
        const decoder = new FrameDecoder(crc32);
        const received: Message[] = [];
        for (const chunk of rechunk(concat([PREAMBLE_BYTES, ...frames]), chunking)) {
          decoder.push(chunk);
          for (let next = decoder.next(); next !== undefined; next = decoder.next())
            received.push(detached(next));
          const due = frames[received.length]?.length ?? 0;
          assert.ok(decoder.bufferedBytes < Math.max(due, PREAMBLE_BYTES.length), 'more than the frame due');
        }
        assert.deepEqual(received.map(plain), sent.map(plain));
        assert.ok(decoder.atBoundary);
        assert.equal(decoder.bufferedBytes, 0);
      }),
      { numRuns: 300 },
    );
  });

  test('the codec gives back a piece only when no message needs its memory any more', () => {
    const random = new Random(7);
    let given = 0;
    for (let round = 0; round < 60; round++) {
      const hashes = message('hashes', { id: round, first: 0, data: random.bytes(random.integer(1, 6000)) });
      const sent: Message[] = [hashes];
      for (let id = 0; id < 5; id++) {
        const data = random.bytes(random.integer(1, 40_000));
        sent.push(message('pages', { id, encoding: 0, rawBytes: data.length, data }), hashes);
      }
      const scribble = (piece: Uint8Array): void => {
        piece.fill(0xaa);
        given++;
      };
      const decoder = new FrameDecoder(crc32, scribble);
      const received: Message[] = [];
      const stream = concat([PREAMBLE_BYTES, ...sent.map(naiveEncode)]);
      for (let at = 0; at < stream.length;) {
        const end = at + random.integer(1, round % 2 === 0 ? 9000 : 100_000);
        decoder.push(stream.slice(at, end));
        at = end;
        for (let next = decoder.next(); next !== undefined; next = decoder.next())
          // Only a page batch loses its bytes with the next call.
          received.push(next.type === 'pages' ? detached(next) : next);
      }
      // A description of the difference would take minutes.
      assert.ok(isDeepStrictEqual(received.map(plain), sent.map(plain)), `other messages in round ${round}`);
    }
    assert.ok(given > 100, `${given} pieces were given back`);
  });

  test('the codec reads a stream that is cut in two, at any byte', () => {
    const sent: Message[] = [example('hello'), example('getPages'), example('close')];
    const stream = concat([PREAMBLE_BYTES, ...sent.map(naiveEncode)]);
    for (let cut = 0; cut <= stream.length; cut++) {
      const decoder = new FrameDecoder(crc32);
      const received: Message[] = [];
      for (const piece of [stream.slice(0, cut), stream.slice(cut)]) {
        decoder.push(piece);
        for (let next = decoder.next(); next !== undefined; next = decoder.next())
          received.push(detached(next));
      }
      assert.deepEqual(received.map(plain), sent.map(plain), `cut after ${cut} bytes`);
    }
  });

  test('the codec reads a stream that comes byte by byte', () => {
    const sent: Message[] = DEFINITIONS.map(([type]) => example(type));
    const decoder = new FrameDecoder(crc32);
    const received: Message[] = [];
    for (const byte of concat([PREAMBLE_BYTES, ...sent.map(naiveEncode)])) {
      decoder.push(Uint8Array.of(byte));
      const next = decoder.next();
      if (next !== undefined) received.push(detached(next));
    }
    assert.deepEqual(received.map(plain), sent.map(plain));
  });

  test('the codec takes little more memory for a frame than its bytes, in pieces of any size', () => {
    const data = new Uint8Array(1 << 20).fill(7);
    const frame = encodeFrame(new FrameEncoder(crc32), message('hashes', { id: 1, first: 2, data }));
    for (const length of [1, 7, 700]) {
      const decoder = new FrameDecoder(crc32);
      decoder.push(PREAMBLE_BYTES);
      const before = memoryInUse();
      for (let at = 0; at + length < frame.length; at += length) {
        decoder.push(frame.slice(at, at + length));
        assert.equal(decoder.next(), undefined);
      }
      const taken = memoryInUse() - before;
      assert.ok(taken < 3 * frame.length, `${taken} bytes for a frame in pieces of ${length}`);
      decoder.push(frame.slice(Math.floor((frame.length - 1) / length) * length));
      assert.deepEqual(decoder.next(), message('hashes', { id: 1, first: 2, data }));
    }
  });

  test('the codec gives the type of a message before its body is there, so that it can be refused', () => {
    const decoder = new FrameDecoder(crc32);
    const frame = naiveEncode(message('hashes', { id: 1, first: 2, data: new Uint8Array(9) }), 0);
    const told: string[] = [];
    decoder.push(concat([PREAMBLE_BYTES, frame.slice(0, FRAME_HEADER_BYTES - 1)]));
    assert.equal(
      decoder.next((type) => told.push(type)),
      undefined,
    );
    assert.deepEqual(told, []);
    decoder.push(frame.slice(FRAME_HEADER_BYTES - 1, FRAME_HEADER_BYTES));
    const refuse = (type: string): never => assert.fail(`no ${type}`);
    assert.throws(() => decoder.next(refuse), /no hashes/);
    assert.throws(() => decoder.next(refuse), /no hashes/, 'it is not forgotten');
  });

  test('the codec carries the largest possible body', () => {
    const data = new Uint8Array(MAX_BODY_BYTES - 12).fill(7);
    const sent = message('hashes', { id: 1, first: 2, data });
    const frame = encodeFrame(new FrameEncoder(crc32), sent);
    assert.equal(frame.length, FRAME_HEADER_BYTES + MAX_BODY_BYTES);
    const decoder = new FrameDecoder(crc32);
    for (const piece of [PREAMBLE_BYTES, frame.slice(0, 1_000_000), frame.slice(1_000_000)])
      decoder.push(piece);
    assert.deepEqual(decoder.next(), sent);
  });

  test('the codec numbers the frames of a stream, and goes on after one that could not be encoded', () => {
    const encoder = new FrameEncoder(crc32);
    encodeFrame(encoder, message('getRoot', {}));
    assert.throws(
      () => encodeFrame(encoder, message('getHashes', { id: -1, level: 0, first: 0, count: 0 })),
      RangeError,
    );
    assert.deepEqual(
      new Uint8Array(encodeFrame(encoder, message('close', {}))),
      naiveEncode(message('close', {}), 1),
    );
  });
});

describe('the encoder refuses with a RangeError', () => {
  const getHashes = { id: 0, level: 0, first: 0, count: 0 };
  const root = { hash: new Uint8Array(8), snapshotHeldMs: 0 };
  const error = { errorCode: 'X', hint: '' };
  const refused: Record<string, () => Message> = {
    'a u8 of 256': () => message('getHashes', { ...getHashes, level: 256 }),
    'a u16 of 65536': () => message('hello', { minVersion: 65536, maxVersion: 1, program: '' }),
    'a u32 of 2^32': () => message('getHashes', { ...getHashes, first: 2 ** 32 }),
    'a fraction': () => message('getHashes', { ...getHashes, count: 0.5 }),
    'a number that is not there': () =>
      message('getHashes', { ...getHashes, id: undefined as unknown as number }),
    'a u64 of 2^53': () => message('root', { ...root, walGrowthBytes: 2 ** 53 }),
    'a negative u64': () => message('root', { ...root, walGrowthBytes: -1 }),
    'a varint of 2^53': () => message('getOwners', { id: 1, pages: [2 ** 53] }),
    'a negative varint': () => message('getOwners', { id: 1, pages: [-1] }),
    'a text that the peer would refuse': () =>
      message('error', { ...error, message: 'é'.repeat(MAX_TEXT_BYTES / 2 + 1) }),
    'more texts than the peer would take': () =>
      message('owners', { id: 1, names: Array.from({ length: MAX_TEXTS + 1 }, () => ''), counts: [] }),
    'a body over its limit': () =>
      message('getPages', { id: 1, pages: [], blockHashes: new Uint8Array(MAX_BODY_BYTES) }),
  };
  for (const [what, make] of Object.entries(refused)) {
    test(`the encoder refuses ${what} with a RangeError`, () =>
      assert.throws(() => encodeFrame(new FrameEncoder(crc32), make()), RangeError));
  }

  test('the encoder takes a text of just the limit', () => {
    const sent = message('error', { ...error, message: 'é'.repeat(MAX_TEXT_BYTES / 2) });
    assert.deepEqual(decodeAll([naiveEncode(sent, 0)]), [sent]);
    assert.deepEqual(new Uint8Array(encodeFrame(new FrameEncoder(crc32), sent)), naiveEncode(sent, 0));
  });
});

describe('a damaged stream', () => {
  const sent: Message[] = [
    message('hello', { minVersion: 1, maxVersion: 1, program: 'x' }),
    message('getChildren', { id: 1, level: 0, parents: [5, 0, 300] }),
    message('getRoot', {}),
    message('close', {}),
  ];
  const frames = sent.map(naiveEncode);
  const stream = concat([PREAMBLE_BYTES, ...frames]);

  test('a damaged stream is refused with any bit flipped, and never yields a wrong message', () => {
    for (let bit = 0; bit < stream.length * 8; bit++) {
      const damaged = new Uint8Array(stream);
      damaged[bit >> 3] = (damaged[bit >> 3] as number) ^ (1 << (bit & 7));
      const { received, violation, atBoundary } = decodeUntilRefused(damaged);
      // A length that became larger but is still allowed only shows as a stream that ends too early.
      assert.ok(violation !== undefined || !atBoundary, `bit ${bit} went unnoticed`);
      assert.deepEqual(received.map(plain), sent.slice(0, received.length).map(plain), `bit ${bit}`);
      assert.ok(received.length < sent.length, `bit ${bit}`);
    }
  });

  test('a damaged stream is never at a boundary if it was cut within a frame', () => {
    const boundaries = new Set<number>();
    let end = PREAMBLE_BYTES.length;
    for (const frame of [new Uint8Array(0), ...frames]) boundaries.add((end += frame.length));
    for (let length = 0; length <= stream.length; length++) {
      const { received, violation, atBoundary } = decodeUntilRefused(stream.slice(0, length));
      assert.equal(violation, undefined);
      assert.equal(atBoundary, boundaries.has(length), `cut after ${length} bytes`);
      assert.deepEqual(received.map(plain), sent.slice(0, received.length).map(plain));
    }
  });

  for (const [what, order] of Object.entries({
    'in which a frame was repeated': [0, 1, 1, 2, 3],
    'in which a frame was dropped': [0, 2, 3],
    'in which two frames were swapped': [0, 2, 1, 3],
    'that was spliced from its beginning again': [0, 1, 0, 1, 2, 3],
  })) {
    test(`a damaged stream ${what} is refused there`, () => {
      const first = order.findIndex((frame, i) => frame !== i);
      const spliced = concat([PREAMBLE_BYTES, ...order.map((frame) => frames[frame] as Uint8Array)]);
      const { received, violation } = decodeUntilRefused(spliced);
      assert.match(violation?.message ?? 'not refused', /frame number \d+ where \d+ was due/);
      assert.equal(received.length, first);
    });
  }

  test('the codec interprets nothing of a stream after a violation', () => {
    const decoder = new FrameDecoder(crc32);
    const damaged = new Uint8Array(frames[0] as Uint8Array);
    damaged[FRAME_HEADER_BYTES] = 9;
    decoder.push(concat([PREAMBLE_BYTES, damaged]));
    assert.throws(() => decoder.next(), ProtocolViolation);
    for (const frame of frames) decoder.push(frame);
    assert.equal(decoder.bufferedBytes, 0, 'it keeps nothing of what comes after');
    assert.throws(() => decoder.next(), /does not match its checksum/);
    assert.equal(decoder.atBoundary, false);
  });

  test('a stream of random bytes never yields a message', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 300 }), fc.boolean(), (noise, greets) => {
        const { received } = decodeUntilRefused(greets ? concat([PREAMBLE_BYTES, noise]) : noise);
        assert.deepEqual(received, []);
      }),
      { numRuns: 300 },
    );
  });
});

describe('a declared length', () => {
  for (const [type, definition] of DEFINITIONS) {
    test(`a declared length of ${type} beyond its limit is refused with the header, before any byte of the body`, () => {
      const decoder = new FrameDecoder(crc32);
      const header = naiveEncode(example(type), 0).slice(0, FRAME_HEADER_BYTES);
      new DataView(header.buffer).setUint32(0, maxBodyBytes(definition) + 1, true);
      decoder.push(concat([PREAMBLE_BYTES, header]));
      assert.throws(() => decoder.next(), new RegExp(`^ProtocolViolation: ${type} of \\d+ bytes, at most`));
    });
  }
});

function decodeAll(frames: readonly Uint8Array[]): Message[] {
  const { received, violation } = decodeUntilRefused(concat([PREAMBLE_BYTES, ...frames]));
  assert.equal(violation, undefined);
  return received;
}

function decodeUntilRefused(stream: Uint8Array): {
  received: Message[];
  violation: ProtocolViolation | undefined;
  atBoundary: boolean;
} {
  const decoder = new FrameDecoder(crc32);
  decoder.push(stream);
  const received: Message[] = [];
  try {
    for (let next = decoder.next(); next !== undefined; next = decoder.next()) received.push(detached(next));
  } catch (error) {
    assert.ok(error instanceof ProtocolViolation, `not a ProtocolViolation: ${String(error)}`);
    return { received, violation: error, atBoundary: decoder.atBoundary };
  }
  return { received, violation: undefined, atBoundary: decoder.atBoundary };
}

function example(type: Message['type']): Message {
  const empty = { bool: false, text: '', bytes: new Uint8Array(0), varints: [], texts: [] };
  const fields = Object.entries(MESSAGES[type].fields as Record<string, string>);
  const values = fields.map(([name, field]) => [name, field in empty ? empty[field as 'bool'] : 0]);
  return { type, ...Object.fromEntries(values) } as Message;
}

/** Views on larger buffers, as plain arrays, so that they compare by content. */
function plain(one: Message): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(one).map(([name, value]) => [
      name,
      value instanceof Uint8Array ? [...value] : (value as unknown),
    ]),
  );
}

const collectGarbage = exposeGc();

function exposeGc(): () => void {
  setFlagsFromString('--expose-gc');
  return runInNewContext('gc') as () => void;
}

/** Reachable bytes, within and outside of the JavaScript heap. */
function memoryInUse(): number {
  collectGarbage();
  const { heapUsed, arrayBuffers } = process.memoryUsage();
  return heapUsed + arrayBuffers;
}
