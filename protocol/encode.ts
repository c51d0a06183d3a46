import { FRAME_HEADER_BYTES, MAX_TEXT_BYTES, MAX_TEXTS } from './limits.ts';
import { maxBodyBytes, MESSAGES } from './messages.ts';
import type { FieldType, Message, MessageName, MessageOf } from './messages.ts';

/**
 * CRC-32 (ISO-HDLC, as in zlib) of `bytes`, continued from `previous`, the CRC-32 of the bytes before (0 if none).
 * Injected, so that this folder stays pure.
 */
export type Checksum = (bytes: Uint8Array, previous: number) => number;

const utf8 = new TextEncoder();

/** Most bodies fit in without growing. */
const SMALL_BODY_BYTES = 256;

/** Turns messages into frames, numbered from 0. One encoder serves one direction of one connection. */
export class FrameEncoder {
  readonly #checksum: Checksum;
  #sequence = 0;

  constructor(checksum: Checksum) {
    this.#checksum = checksum;
  }

  /**
   * The frame of `outgoing` (header and body), in one or two pieces. The bytes of a page batch and of a part of a file
   * are not copied, and must not change until they were sent. Throws RangeError if a value does not fit its field.
   */
  encode(outgoing: Message): Uint8Array[] {
    const definition = MESSAGES[outgoing.type];
    const batch = outgoing.type === 'pages' || outgoing.type === 'filePart' ? outgoing.data : undefined;
    const body = new BodyWriter(maxBodyBytes(definition), roomFor(outgoing));
    const values = outgoing as unknown as Record<string, unknown>;
    for (const [name, type] of Object.entries(definition.fields) as [string, FieldType][]) {
      if (batch !== undefined && name === 'data') body.lengthOnly(batch.length);
      else body.field(type, values[name], `${outgoing.type}.${name}`);
    }
    const start = body.finish(batch?.length ?? 0);
    const header = new DataView(start.buffer, start.byteOffset, FRAME_HEADER_BYTES);
    header.setUint32(0, start.length - FRAME_HEADER_BYTES + (batch?.length ?? 0), true);
    header.setUint8(4, definition.code);
    header.setUint32(8, this.#sequence, true);
    this.#sequence = (this.#sequence + 1) >>> 0;
    const checksum = frameChecksum(this.#checksum, start);
    header.setUint32(12, batch === undefined ? checksum : this.#checksum(batch, checksum), true);
    return batch === undefined ? [start] : [start, batch];
  }
}

/** Room for a body with one large field, so that it need not grow. */
function roomFor(outgoing: Message): number {
  switch (outgoing.type) {
    case 'hashes':
      return outgoing.data.length + SMALL_BODY_BYTES;
    case 'getPages':
      return outgoing.blockHashes.length + outgoing.pages.length * 8 + SMALL_BODY_BYTES;
    default:
      return SMALL_BODY_BYTES;
  }
}

/** The checksum of a frame: of the header's first 12 bytes and the body. */
export function frameChecksum(checksum: Checksum, frame: Uint8Array): number {
  return checksum(frame.subarray(FRAME_HEADER_BYTES), checksum(frame.subarray(0, 12), 0));
}

/** A message literal whose type follows from its name; only for readability at the call. */
export function message<N extends MessageName>(type: N, fields: Omit<MessageOf<N>, 'type'>): MessageOf<N> {
  return { type, ...fields } as MessageOf<N>;
}

/** A growing buffer that begins with room for the frame header. */
class BodyWriter {
  readonly #maxBytes: number;
  #bytes: Uint8Array;
  #view: DataView;
  #length = FRAME_HEADER_BYTES;

  constructor(maxBytes: number, expectedBytes: number) {
    this.#maxBytes = maxBytes;
    this.#bytes = new Uint8Array(FRAME_HEADER_BYTES + expectedBytes);
    this.#view = new DataView(this.#bytes.buffer);
  }

  field(type: FieldType, value: unknown, name: string): void {
    switch (type) {
      case 'u8':
        return this.#unsigned(value, 1, name);
      case 'u16':
        return this.#unsigned(value, 2, name);
      case 'u32':
        return this.#unsigned(value, 4, name);
      case 'u64':
        return this.#u64(value as number, name);
      case 'bool':
        return this.#unsigned(value === true ? 1 : 0, 1, name);
      case 'text':
        return this.#text(value as string, name);
      case 'bytes':
        return this.#lengthAndBytes(value as Uint8Array);
      case 'varints':
        return this.#varints(value as readonly number[], name);
      case 'texts':
        return this.#texts(value as readonly string[], name);
    }
  }

  /** Writes the length of bytes that follow the body as a separate piece. */
  lengthOnly(bytes: number): void {
    this.#unsigned(bytes, 4, 'length');
  }

  /** @param following Bytes of the body that are not written here. */
  finish(following: number): Uint8Array {
    const length = this.#length - FRAME_HEADER_BYTES + following;
    if (length > this.#maxBytes)
      throw new RangeError(`body of ${length} bytes, at most ${this.#maxBytes} are allowed`);
    return this.#bytes.subarray(0, this.#length);
  }

  #unsigned(value: unknown, bytes: 1 | 2 | 4, name: string): void {
    if (typeof value !== 'number' || !Number.isInteger(value) || value < 0 || value >= 256 ** bytes) {
      throw new RangeError(`${name}: ${String(value)} is no unsigned integer of ${bytes} bytes`);
    }
    this.#reserve(bytes);
    if (bytes === 1) this.#view.setUint8(this.#length, value);
    else if (bytes === 2) this.#view.setUint16(this.#length, value, true);
    else this.#view.setUint32(this.#length, value, true);
    this.#length += bytes;
  }

  #u64(value: number, name: string): void {
    if (!Number.isSafeInteger(value) || value < 0) throw new RangeError(`${name}: ${value} is out of range`);
    this.#reserve(8);
    this.#view.setUint32(this.#length, value % 2 ** 32, true);
    this.#view.setUint32(this.#length + 4, Math.floor(value / 2 ** 32), true);
    this.#length += 8;
  }

  #text(text: string, name: string): void {
    const bytes = utf8.encode(text);
    if (bytes.length > MAX_TEXT_BYTES)
      throw new RangeError(`${name}: ${bytes.length} bytes, at most ${MAX_TEXT_BYTES} are allowed`);
    this.#lengthAndBytes(bytes);
  }

  #texts(texts: readonly string[], name: string): void {
    if (texts.length > MAX_TEXTS)
      throw new RangeError(`${name}: ${texts.length} texts, at most ${MAX_TEXTS} are allowed`);
    this.#unsigned(texts.length, 4, name);
    for (const text of texts) this.#text(text, name);
  }

  #lengthAndBytes(bytes: Uint8Array): void {
    this.#unsigned(bytes.length, 4, 'length');
    this.#reserve(bytes.length);
    this.#bytes.set(bytes, this.#length);
    this.#length += bytes.length;
  }

  #varints(values: readonly number[], name: string): void {
    this.#unsigned(values.length, 4, name);
    this.#reserve(values.length * 8);
    for (let value of values) {
      if (!Number.isSafeInteger(value) || value < 0)
        throw new RangeError(`${name}: ${value} is out of range`);
      while (value >= 128) {
        this.#bytes[this.#length++] = (value % 128) + 128;
        value = Math.floor(value / 128);
      }
      this.#bytes[this.#length++] = value;
    }
  }

  #reserve(bytes: number): void {
    if (this.#length + bytes <= this.#bytes.length) return;
    const grown = new Uint8Array(Math.max(this.#bytes.length * 2, this.#length + bytes));
    grown.set(this.#bytes.subarray(0, this.#length));
    this.#bytes = grown;
    this.#view = new DataView(grown.buffer);
  }
}
