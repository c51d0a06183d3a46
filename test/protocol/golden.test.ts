import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { describe, test } from 'node:test';
import { FrameDecoder } from '../../protocol/decode.ts';
import { FrameEncoder } from '../../protocol/encode.ts';
import { MESSAGES } from '../../protocol/messages.ts';
import type { Message } from '../../protocol/messages.ts';
import { MIN_PROTOCOL_VERSION, PROTOCOL_VERSION } from '../../protocol/version.ts';
import { goldenPath, toGolden } from '../../fixtures/wire.ts';
import type { GoldenFrame } from '../../fixtures/wire.ts';
import { crc32 } from 'node:zlib';
import { concat, DEFINITIONS, naiveCrc32, naiveEncode, PREAMBLE_BYTES } from './oracle.ts';
import { naiveSipHash } from './keyed-hash.ts';
import { naiveXxh64 } from './xxhash.ts';
import { encodeFrame } from '../support/frames.ts';

for (let version = MIN_PROTOCOL_VERSION; version <= PROTOCOL_VERSION; version++) {
  describe(`the golden frames of version ${version}`, () => {
    const frames = readFileSync(goldenPath(version), 'utf8')
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line) as GoldenFrame);

    test('the golden frames are decoded to their messages', () => {
      const decoder = new FrameDecoder(crc32);
      decoder.push(concat([PREAMBLE_BYTES, ...frames.map(({ frame }) => Buffer.from(frame, 'hex'))]));
      for (const golden of frames) {
        const decoded = decoder.next();
        assert.ok(decoded, `${golden.message.type} is missing`);
        assert.deepEqual(toGolden(decoded, Buffer.from(golden.frame, 'hex')), golden);
      }
      assert.ok(decoder.atBoundary);
    });

    test('the golden frames include every message of their version', () => {
      const names = new Set(frames.map(({ message }) => message.type));
      if (version === PROTOCOL_VERSION) assert.deepEqual([...names].sort(), Object.keys(MESSAGES).sort());
    });
  });
}

describe(`the golden frames of the current version, ${PROTOCOL_VERSION}`, () => {
  const frames = readFileSync(goldenPath(PROTOCOL_VERSION), 'utf8')
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line) as GoldenFrame);

  test('the current golden frames are encoded byte for byte', () => {
    const encoder = new FrameEncoder(crc32);
    for (const { message, frame } of frames)
      assert.equal(
        Buffer.from(encodeFrame(encoder, fromGolden(message))).toString('hex'),
        frame,
        message.type,
      );
  });

  test('the current golden frames equal those of a second codec, written from SPEC.md', () => {
    for (const [sequence, { message, frame }] of frames.entries()) {
      const naive = naiveEncode(fromGolden(message), sequence);
      assert.equal(Buffer.from(naive).toString('hex'), frame, message.type);
    }
  });

  test('the golden frames have no folder of a version that does not exist', () => {
    const folders = readdirSync(dirname(dirname(goldenPath(PROTOCOL_VERSION)))).sort();
    assert.deepEqual(
      folders,
      Array.from({ length: PROTOCOL_VERSION }, (_, i) => `v${i + 1}`),
    );
  });
});

test('the hashes that the tests compare with give the published values', () => {
  const bytes = (value: string): Uint8Array => new TextEncoder().encode(value);
  // SipHash-2-4 under the key 00 01 … 0f of the bytes 00 01 02 …, by their number (the paper, and its reference program).
  const counting = (length: number): Uint8Array => Uint8Array.from({ length }, (_, i) => i);
  for (const [length, hash] of [
    [0, 0x726fdb47dd0e0e31n],
    [1, 0x74f839c593dc67fdn],
    [7, 0xab0200f58b01d137n],
    [8, 0x93f5f5799a932462n],
    [15, 0xa129ca6149be45e5n],
    [63, 0x958a324ceb064572n],
  ] as const)
    assert.equal(naiveSipHash(counting(16), counting(length)), hash, `${length} bytes`);
  assert.equal(naiveCrc32(bytes('123456789')), 0xcbf43926);
  assert.equal(naiveXxh64(bytes(''), 0n), 0xef46db3751d8e999n);
  assert.equal(naiveXxh64(bytes('a'), 0n), 0xd24ec4f1a98c6e5bn);
  assert.equal(naiveXxh64(bytes('Nobody inspects the spammish repetition'), 0n), 0xfbcea83c8a378bf1n);
});

/** The message of a golden frame; its byte strings are hex there. */
function fromGolden(golden: GoldenFrame['message']): Message {
  const fields = DEFINITIONS.find(([name]) => name === golden.type)?.[1].fields;
  const entries = Object.entries(golden).map(([name, value]) => [
    name,
    fields?.[name] === 'bytes' ? new Uint8Array(Buffer.from(value as string, 'hex')) : value,
  ]);
  return Object.fromEntries(entries) as Message;
}
