import { crc32 } from 'node:zlib';
import type { Random } from '../../fixtures/random.ts';
import { MESSAGES } from '../../protocol/messages.ts';
import type { FieldType, Message, MessageDefinition } from '../../protocol/messages.ts';
import { naiveField } from '../protocol/oracle.ts';

/** A message whose fields may hold any value of their type, beyond every limit. */
type Loose = { type: Message['type'] } & Record<string, unknown>;

const MAX_BY_TYPE = { u8: 2 ** 8 - 1, u16: 2 ** 16 - 1, u32: 2 ** 32 - 1, u64: Number.MAX_SAFE_INTEGER };

const TEXTS = [
  '',
  '\0',
  '../../../../etc/passwd',
  '/dev/zero',
  '/proc/self/mem',
  'a\u001b]0;title\u0007\u202e',
  'x'.repeat(16_384),
  'file:a?mode=memory',
  '-wal',
];

/** The message with one to three of its fields changed, each to a value that its type can carry. */
export function mutateFields(random: Random, original: Message): Message {
  const { fields }: MessageDefinition = MESSAGES[original.type];
  const names = Object.keys(fields);
  const mutated: Loose = { ...original };
  for (let changes = names.length === 0 ? 0 : random.pick([1, 1, 1, 2, 3]); changes > 0; changes--) {
    const name = random.pick(names);
    mutated[name] = mutateValue(random, fields[name] as FieldType, mutated[name]);
  }
  return mutated as Message;
}

/** The frame of a message, without a look at any limit. */
export function looseFrame(message: Message, sequence: number): Buffer {
  const definition: MessageDefinition = MESSAGES[message.type];
  const values = message as Loose;
  const parts = Object.entries(definition.fields).map(([name, type]) => looseField(type, values[name]));
  const frame = Buffer.concat([Buffer.alloc(16), ...parts]);
  frame.writeUInt32LE(frame.length - 16, 0);
  frame.writeUInt8(definition.code, 4);
  frame.writeUInt32LE(sequence >>> 0, 8);
  return withChecksum(frame);
}

/** Damage that no sender of messages could do: to header, body or length; the checksum is right half of the time. */
export function mutateBytes(random: Random, frame: Buffer): Buffer {
  let damaged = Buffer.from(frame);
  for (let changes = random.integer(1, 4); changes > 0; changes--) {
    const at = random.integer(0, damaged.length - 1);
    const how = random.integer(0, 4);
    if (how === 0) damaged[at] = random.integer(0, 255);
    else if (how === 1) damaged[at] = (damaged[at] ?? 0) ^ (1 << random.integer(0, 7));
    else if (how === 2) damaged = damaged.subarray(0, Math.max(1, at));
    else if (how === 3) damaged = Buffer.concat([damaged, random.bytes(random.integer(1, 64))]);
    else if (damaged.length >= 4) damaged.writeUInt32LE(random.uint32(), Math.min(at, damaged.length - 4));
  }
  return damaged.length > 16 && random.chance(0.5) ? withChecksum(damaged) : damaged;
}

function withChecksum(frame: Buffer): Buffer {
  frame.writeUInt32LE(crc32(frame.subarray(16), crc32(frame.subarray(0, 12))), 12);
  return frame;
}

/** The oracle's encoding, except for long byte strings, which the oracle spells out number by number. */
function looseField(type: FieldType, value: unknown): Buffer {
  if (type !== 'bytes') return Buffer.from(naiveField(type, value));
  const bytes = value as Uint8Array;
  const length = Buffer.alloc(4);
  length.writeUInt32LE(bytes.length);
  return Buffer.concat([length, bytes]);
}

function mutateValue(random: Random, type: FieldType, value: unknown): unknown {
  switch (type) {
    case 'u8':
    case 'u16':
    case 'u32':
    case 'u64':
      return mutateNumber(random, value as number, MAX_BY_TYPE[type]);
    case 'bool':
      return value !== true;
    case 'text':
      return random.chance(0.5) ? random.pick(TEXTS) : random.text(random.integer(0, 300));
    case 'texts':
      return Array.from({ length: random.integer(0, 5) }, () => random.pick(TEXTS));
    case 'bytes':
      return mutateByteString(random, value as Uint8Array);
    case 'varints':
      return mutateNumbers(random, value as readonly number[]);
  }
}

function mutateNumber(random: Random, value: number, max: number): number {
  const choices = [0, 1, value + 1, value - 1, value * 2, max, max - 1, 2 ** 31, random.uint32(), value ^ 1];
  const chosen = Math.floor(random.pick(choices));
  return Math.min(max, Math.max(0, chosen));
}

function mutateByteString(random: Random, value: Uint8Array): Uint8Array {
  const how = random.integer(0, 4);
  if (how === 0) return value.subarray(0, random.integer(0, value.length));
  if (how === 1) return random.bytes(random.integer(0, 200));
  if (how === 2) return Buffer.concat([value, random.bytes(random.integer(1, 40))]);
  const copy = Buffer.from(value);
  for (let i = random.integer(1, 8); i > 0 && copy.length > 0; i--) {
    copy[random.integer(0, copy.length - 1)] = random.integer(0, 255);
  }
  return copy;
}

function mutateNumbers(random: Random, values: readonly number[]): number[] {
  const copy = values.slice(0, 2000);
  const how = random.integer(0, 4);
  if (how === 0) return copy.slice(0, random.integer(0, copy.length));
  if (how === 1) return Array.from({ length: random.integer(0, 400) }, () => random.integer(0, 3));
  if (how === 2) return [...copy, random.pick([0, 2 ** 31, Number.MAX_SAFE_INTEGER, random.uint32()])];
  if (how === 3) return Array.from({ length: random.integer(0, 20) }, () => random.uint32());
  if (copy.length > 0) copy[random.integer(0, copy.length - 1)] = random.uint32();
  return copy;
}
