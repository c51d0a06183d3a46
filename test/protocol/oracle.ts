/**
 * The codec written a second time, as plainly as possible, from SPEC.md; and messages of any content for
 * fast-check.
 */
import fc from 'fast-check';
import { Random } from '../../fixtures/random.ts';
import { MESSAGES } from '../../protocol/messages.ts';
import type { FieldType, Message, MessageDefinition, MessageName } from '../../protocol/messages.ts';

export const DEFINITIONS = Object.entries(MESSAGES) as [MessageName, MessageDefinition][];

/** The beginning of a stream. */
export const PREAMBLE_BYTES: Uint8Array = new TextEncoder().encode('sqlsync\n');

/** A frame as SPEC.md has it, of any header values. */
export function naiveFrame(
  code: number,
  sequence: number,
  body: readonly number[] | Uint8Array,
  damage: { declaredBytes?: number; reserved?: readonly number[]; checksum?: number } = {},
): Uint8Array {
  const frame = new Uint8Array(16 + body.length);
  const view = new DataView(frame.buffer);
  view.setUint32(0, damage.declaredBytes ?? body.length, true);
  view.setUint8(4, code);
  frame.set(damage.reserved ?? [0, 0, 0], 5);
  view.setUint32(8, sequence, true);
  frame.set(body, 16);
  const checksum = naiveCrc32([...frame.subarray(0, 12), ...frame.subarray(16)]);
  view.setUint32(12, damage.checksum ?? checksum, true);
  return frame;
}

/** CRC-32 bit by bit. */
export function naiveCrc32(bytes: Iterable<number>): number {
  let crc = 0xffffffff;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? 0xedb88320 : 0);
  }
  return (crc ^ 0xffffffff) >>> 0;
}

export function naiveEncode(message: Message, sequence: number): Uint8Array {
  const definition: MessageDefinition = MESSAGES[message.type];
  const values = message as unknown as Record<string, unknown>;
  const body = Object.entries(definition.fields).flatMap(([name, type]) => naiveField(type, values[name]));
  return naiveFrame(definition.code, sequence, body);
}

export function naiveField(type: FieldType, value: unknown): number[] {
  switch (type) {
    case 'u8':
      return littleEndian(value as number, 1);
    case 'u16':
      return littleEndian(value as number, 2);
    case 'u32':
      return littleEndian(value as number, 4);
    case 'u64':
      return littleEndian(value as number, 8);
    case 'bool':
      return [value === true ? 1 : 0];
    case 'text': {
      const bytes = Buffer.from(value as string, 'utf8');
      return [...littleEndian(bytes.length, 4), ...bytes];
    }
    case 'bytes': {
      const bytes = value as Uint8Array;
      return [...littleEndian(bytes.length, 4), ...bytes];
    }
    case 'varints': {
      const numbers = value as readonly number[];
      return [...littleEndian(numbers.length, 4), ...numbers.flatMap(leb128)];
    }
    case 'texts': {
      const texts = value as readonly string[];
      return [...littleEndian(texts.length, 4), ...texts.flatMap((text) => naiveField('text', text))];
    }
  }
}

export function littleEndian(value: number, bytes: number): number[] {
  return Array.from({ length: bytes }, (_, i) => Number((BigInt(value) >> BigInt(8 * i)) & 0xffn));
}

function leb128(value: number): number[] {
  const groups: number[] = [];
  for (let rest = BigInt(value); groups.length === 0 || rest > 0n; rest >>= 7n)
    groups.push(Number(rest & 0x7fn));
  return groups.map((group, i) => (i < groups.length - 1 ? group | 0x80 : group));
}

const number = (bits: 8 | 16 | 32): fc.Arbitrary<number> =>
  fc.oneof(fc.nat({ max: 2 ** bits - 1 }), fc.constantFrom(0, 1, 127, 128, 2 ** bits - 1));

const large: fc.Arbitrary<number> = fc.oneof(
  fc.maxSafeNat(),
  fc.nat({ max: 300 }),
  fc.constantFrom(2 ** 31, 2 ** 32 - 1, 2 ** 32, 2 ** 53 - 1),
  fc.nat({ max: 7 }).map((power) => 128 ** power),
);

const text: fc.Arbitrary<string> = fc.oneof(
  fc.string({ unit: 'grapheme', maxLength: 40 }),
  fc.string({ unit: 'binary', maxLength: 40 }),
  fc.constantFrom('\ufeff', '\ufeffx', '\0', ''),
);

const FIELD_ARBITRARIES: Record<FieldType, fc.Arbitrary<unknown>> = {
  u8: number(8),
  u16: number(16),
  u32: number(32),
  u64: large,
  bool: fc.boolean(),
  text,
  bytes: fc.uint8Array({ maxLength: 200 }),
  varints: fc.array(large, { maxLength: 30 }),
  texts: fc.array(text, { maxLength: 5 }),
};

/** A message of any kind and content; shrinks towards the first kinds and empty fields. */
export const messageArbitrary: fc.Arbitrary<Message> = fc.oneof(
  ...DEFINITIONS.map(([type, { fields }]) =>
    fc
      .record(
        Object.fromEntries(Object.entries(fields).map(([name, field]) => [name, FIELD_ARBITRARIES[field]])),
      )
      .map((values) => Object.assign({ type }, values) as unknown as Message),
  ),
);

/** The cuts of a stream into pieces: all that fast-check has to remember of it. */
export interface Chunking {
  readonly seed: number;
  readonly maxBytes: number;
}

export const chunkingArbitrary: fc.Arbitrary<Chunking> = fc.record({
  seed: fc.integer(),
  maxBytes: fc.constantFrom(1000, 200, 64, 17, 3),
});

export function rechunk(bytes: Uint8Array, { seed, maxBytes }: Chunking): Uint8Array[] {
  const random = new Random(seed);
  const chunks: Uint8Array[] = [];
  for (let start = 0; start < bytes.length;) {
    const end = start + random.integer(0, maxBytes);
    chunks.push(bytes.slice(start, end));
    start = Math.min(end, bytes.length);
  }
  return chunks;
}

export function concat(pieces: readonly Uint8Array[]): Uint8Array {
  return new Uint8Array(Buffer.concat(pieces));
}
