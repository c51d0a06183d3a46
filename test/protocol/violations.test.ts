import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { FrameDecoder, ProtocolViolation } from '../../protocol/decode.ts';
import { MAX_SMALL_BODY_BYTES, MAX_TEXT_BYTES, MAX_TEXTS } from '../../protocol/limits.ts';
import { MESSAGES } from '../../protocol/messages.ts';
import type { MessageName } from '../../protocol/messages.ts';
import { crc32 } from 'node:zlib';
import { concat, littleEndian, naiveField, naiveFrame, PREAMBLE_BYTES } from './oracle.ts';

const u32 = (value: number): number[] => littleEndian(value, 4);
const text = (value: string): number[] => naiveField('text', value);

/** A frame 0 of this message and body, right except for the damage. */
function frame(
  name: MessageName,
  body: readonly number[] | Uint8Array,
  damage: Parameters<typeof naiveFrame>[3] = {},
): Uint8Array {
  return naiveFrame(MESSAGES[name].code, 0, body, damage);
}

/** `getOwners` (id, pages) with its `varints` written by hand. */
function varints(count: number, bytes: readonly number[]): Uint8Array {
  return frame('getOwners', [...u32(1), ...u32(count), ...bytes]);
}

/** `root` (hash, snapshotHeldMs, walGrowthBytes) with its `u64` written by hand. */
function walGrowth(bytes: readonly number[]): Uint8Array {
  return frame('root', [...u32(0), ...u32(0), ...bytes]);
}

/** `hello` (minVersion, maxVersion, program) with its `text` written by hand. */
function program(bytes: readonly number[] | Uint8Array): Uint8Array {
  return frame('hello', concat([Uint8Array.of(1, 0, 1, 0), Uint8Array.from(bytes)]));
}

/** An `error` with a right body. */
const GOOD_ERROR = [...text('BUSY'), ...text('locked'), ...text('')];

/** Frames that each break one rule, and the decoder's message. */
const REFUSED: Record<string, { frame: Uint8Array; says: RegExp }> = {
  'an unknown type': { frame: naiveFrame(99, 0, []), says: /unknown message type 99/ },
  'type 0': { frame: naiveFrame(0, 0, []), says: /unknown message type 0/ },
  'the first reserved byte not zero': {
    frame: frame('getRoot', [], { reserved: [1, 0, 0] }),
    says: /reserved bytes/,
  },
  'the second reserved byte not zero': {
    frame: frame('getRoot', [], { reserved: [0, 1, 0] }),
    says: /reserved bytes/,
  },
  'the third reserved byte not zero': {
    frame: frame('getRoot', [], { reserved: [0, 0, 128] }),
    says: /reserved bytes/,
  },
  'a sequence number that is not due': {
    frame: naiveFrame(MESSAGES.getRoot.code, 1, []),
    says: /frame number 1 where 0 was due/,
  },
  'a body over the limit of a small message': {
    frame: frame('error', [], { declaredBytes: MAX_SMALL_BODY_BYTES + 1 }),
    says: /error of 65537 bytes, at most 65536/,
  },
  'a checksum that is wrong': {
    frame: frame('error', GOOD_ERROR, { checksum: 1 }),
    says: /does not match its checksum/,
  },
  'a byte after the last field': {
    frame: frame('error', [...GOOD_ERROR, 0]),
    says: /1 bytes after its last field/,
  },
  'a body for a message without fields': { frame: frame('close', [0]), says: /1 bytes after its last field/ },
  'a body that ends within a number': {
    frame: frame('getHashes', [1, 0, 0]),
    says: /ends 4 bytes too early/,
  },
  'a body that ends within a text': { frame: frame('error', GOOD_ERROR.slice(0, 6)), says: /too early/ },
  'a body that ends before a byte string': {
    frame: frame('hashes', [...u32(1), ...u32(0), ...u32(5), 1, 2, 3, 4]),
    says: /ends 5 bytes too early/,
  },
  'a bool of 2': {
    frame: frame('replicate', [...text(''), ...text(''), 1, 1, 2, 0, 0, ...u32(0)]),
    says: /2 where 0 or 1 was due/,
  },
  'a text with a lone continuation byte': { frame: program([...u32(1), 0x80]), says: /not UTF-8/ },
  'a text with a surrogate': { frame: program([...u32(3), 0xed, 0xa0, 0x80]), says: /not UTF-8/ },
  'a text with an overlong form': { frame: program([...u32(2), 0xc0, 0xaf]), says: /not UTF-8/ },
  'a text cut within a character': { frame: program([...u32(2), 0xe2, 0x82]), says: /not UTF-8/ },
  'a text that is too long': {
    frame: program(concat([Uint8Array.from(u32(MAX_TEXT_BYTES + 1)), new Uint8Array(MAX_TEXT_BYTES + 1)])),
    says: /a text of 16385 bytes, at most 16384/,
  },
  'too many texts': {
    frame: frame('owners', [
      ...u32(1),
      ...u32(MAX_TEXTS + 1),
      ...new Uint8Array(4 * (MAX_TEXTS + 1)),
      ...u32(0),
    ]),
    says: /4097 texts, at most 4096/,
  },
  'a list of texts that ends too early': {
    frame: frame('owners', [...u32(1), ...u32(2), ...text('a')]),
    says: /too early/,
  },
  'a varint with a needless last byte': { frame: varints(1, [0x85, 0x00]), says: /needless last byte/ },
  'a zero of two bytes': { frame: varints(1, [0x80, 0x00]), says: /needless last byte/ },
  'a varint of 2^53': {
    frame: varints(1, [0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x10]),
    says: /beyond 2\^53-1/,
  },
  'a varint of nine bytes': {
    frame: varints(1, [0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01]),
    says: /beyond 2\^53-1/,
  },
  'a varint that does not end': { frame: varints(1, [0x80]), says: /too early/ },
  'more varints than the body can hold': {
    frame: varints(2 ** 32 - 1, [1, 2, 3]),
    says: /4294967295 numbers in too few bytes/,
  },
  'a u64 of 2^53': { frame: walGrowth([0, 0, 0, 0, 0, 0, 0x20, 0]), says: /beyond 2\^53-1/ },
  'a u64 of 2^64-1': { frame: walGrowth(Array.from({ length: 8 }, () => 255)), says: /beyond 2\^53-1/ },
};

describe('the decoder refuses', () => {
  for (const [what, { frame: bytes, says }] of Object.entries(REFUSED)) {
    test(`the decoder refuses ${what}`, () => {
      assert.throws(
        () => decode(concat([PREAMBLE_BYTES, bytes])),
        (error: unknown) => {
          assert.ok(error instanceof ProtocolViolation, String(error));
          assert.match(error.message, says);
          return true;
        },
      );
    });
  }

  for (let at = 0; at < PREAMBLE_BYTES.length; at++) {
    test(`the decoder refuses a preamble that is wrong at byte ${at}, as soon as that byte is there`, () => {
      const wrong = new Uint8Array(PREAMBLE_BYTES.slice(0, at + 1));
      wrong[at] = (wrong[at] as number) ^ 0x20;
      assert.throws(() => decode(wrong), ProtocolViolation);
    });
  }

  test("the decoder refuses another program's output, and shows the beginning of it", () => {
    const banner = `Welcome to db.example.org!\n${'*'.repeat(1000)}`;
    assert.throws(
      () => decode(new TextEncoder().encode(banner)),
      (error: unknown) => {
        assert.ok(error instanceof ProtocolViolation);
        assert.equal(new TextDecoder().decode(error.received), banner.slice(0, 200));
        return true;
      },
    );
  });
});

describe('the decoder takes', () => {
  const allowed: Record<string, { frame: Uint8Array; field: string; value: unknown }> = {
    'a text of just the limit': {
      frame: program(
        concat([Uint8Array.from(u32(MAX_TEXT_BYTES)), new Uint8Array(MAX_TEXT_BYTES).fill(0x61)]),
      ),
      field: 'program',
      value: 'a'.repeat(MAX_TEXT_BYTES),
    },
    'a text that begins with a byte order mark': {
      frame: program([...u32(4), 0xef, 0xbb, 0xbf, 0x61]),
      field: 'program',
      value: '\ufeffa',
    },
    'as many texts as the limit allows': {
      frame: frame('owners', [...u32(1), ...u32(MAX_TEXTS), ...new Uint8Array(4 * MAX_TEXTS), ...u32(0)]),
      field: 'names',
      value: Array.from({ length: MAX_TEXTS }, () => ''),
    },
    'a varint of 2^53-1': {
      frame: varints(1, [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x0f]),
      field: 'pages',
      value: [2 ** 53 - 1],
    },
    'a u64 of 2^53-1': {
      frame: walGrowth([255, 255, 255, 255, 255, 255, 0x1f, 0]),
      field: 'walGrowthBytes',
      value: 2 ** 53 - 1,
    },
  };
  for (const [what, { frame: bytes, field, value }] of Object.entries(allowed)) {
    test(`the decoder takes ${what}`, () => {
      const decoded = decode(concat([PREAMBLE_BYTES, bytes])) as Record<string, unknown> | undefined;
      assert.deepEqual(decoded?.[field], value);
    });
  }
});

function decode(stream: Uint8Array): unknown {
  const decoder = new FrameDecoder(crc32);
  decoder.push(stream);
  return decoder.next();
}
