import { frameChecksum } from './encode.ts';
import type { Checksum } from './encode.ts';
import { FRAME_HEADER_BYTES, MAX_TEXT_BYTES, MAX_TEXTS } from './limits.ts';
import { maxBodyBytes, MESSAGES } from './messages.ts';
import type { FieldType, Message, MessageDefinition, MessageName } from './messages.ts';
import { PREAMBLE } from './version.ts';

/** The bytes violate SPEC.md. `received` is the start of what came instead, if that helps the message. */
export class ProtocolViolation extends Error {
  readonly received: Uint8Array | undefined;

  constructor(message: string, received?: Uint8Array) {
    super(message);
    this.name = 'ProtocolViolation';
    this.received = received;
  }
}

const NAMES_BY_CODE = new Map<number, MessageName>(
  (Object.entries(MESSAGES) as [MessageName, MessageDefinition][]).map(([name, { code }]) => [code, name]),
);
const PREAMBLE_BYTES = new TextEncoder().encode(PREAMBLE);
// Keeps a byte order mark: it is part of a path, not of the encoding.
const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

/**
 * Turns bytes, in pieces of any size, into messages. One decoder serves one direction of one connection. It checks a
 * frame's declared length before it keeps anything, so it never buffers more than one frame. After a violation it
 * interprets nothing more: every `next()` throws the same error again.
 */
export class FrameDecoder {
  readonly #checksum: Checksum;
  readonly #pieces: PieceQueue;
  #batchFrame = new Uint8Array(0);
  #sequence = 0;
  #preambleSeen = false;
  #header: { definition: MessageDefinition; name: MessageName; bodyBytes: number } | undefined;
  #violation: ProtocolViolation | undefined;

  /** `onTaken` gets back each pushed piece once neither the decoder nor a message refers to its bytes. */
  constructor(checksum: Checksum, onTaken?: (piece: Uint8Array) => void) {
    this.#checksum = checksum;
    this.#pieces = new PieceQueue(onTaken);
  }

  /** True if the bytes so far end between two messages. */
  get atBoundary(): boolean {
    return this.#preambleSeen && this.#header === undefined && this.#pieces.length === 0;
  }

  /** Bytes that were pushed but not yet decoded. */
  get bufferedBytes(): number {
    return this.#pieces.length;
  }

  /**
   * Takes the next bytes; `next()` then returns the messages that they complete. The bytes must not change afterwards.
   */
  push(bytes: Uint8Array): void {
    if (this.#violation === undefined) this.#pieces.push(bytes);
  }

  /**
   * The next complete message, or undefined until more bytes come. The `data` of a `pages` or `filePart` message is valid until
   * the next call. `onHeader` receives the type of a message before its body has arrived, and may throw to refuse it.
   * Throws ProtocolViolation.
   */
  next(onHeader?: (name: MessageName) => void): Message | undefined {
    if (this.#violation !== undefined) throw this.#violation;
    try {
      return this.#next(onHeader);
    } catch (error) {
      if (error instanceof ProtocolViolation) this.#violation = error;
      throw error;
    }
  }

  #next(onHeader?: (name: MessageName) => void): Message | undefined {
    if (!this.#preambleSeen && !this.#readPreamble()) return undefined;
    if (this.#header === undefined) {
      if (this.#pieces.length < FRAME_HEADER_BYTES) return undefined;
      const header = this.#checkHeader(this.#pieces.peek(FRAME_HEADER_BYTES));
      onHeader?.(header.name);
      this.#header = header;
    }
    const { definition, name, bodyBytes } = this.#header;
    if (this.#pieces.length < FRAME_HEADER_BYTES + bodyBytes) return undefined;
    const frame = this.#take(name, FRAME_HEADER_BYTES + bodyBytes);
    const declared = new DataView(frame.buffer, frame.byteOffset).getUint32(12, true);
    if (frameChecksum(this.#checksum, frame) !== declared) {
      throw new ProtocolViolation(`frame ${this.#sequence} (${name}) does not match its checksum`);
    }
    this.#header = undefined;
    this.#sequence = (this.#sequence + 1) >>> 0;
    return decodeBody(name, definition, frame.subarray(FRAME_HEADER_BYTES));
  }

  /** Page batches and parts of files, which are most of the bytes, are assembled in the same memory again and again. */
  #take(name: MessageName, length: number): Uint8Array {
    if (name !== 'pages' && name !== 'filePart') return this.#pieces.take(length);
    if (this.#batchFrame.length < length) this.#batchFrame = new Uint8Array(length);
    return this.#pieces.take(length, this.#batchFrame);
  }

  #readPreamble(): boolean {
    const length = Math.min(this.#pieces.length, PREAMBLE_BYTES.length);
    const start = this.#pieces.peek(length);
    if (start.some((byte, i) => byte !== PREAMBLE_BYTES[i])) {
      throw new ProtocolViolation(
        'the stream does not begin with the preamble of sqlsync’s protocol',
        this.#pieces.peek(200),
      );
    }
    if (length < PREAMBLE_BYTES.length) return false;
    this.#pieces.take(length);
    return (this.#preambleSeen = true);
  }

  #checkHeader(header: Uint8Array): { definition: MessageDefinition; name: MessageName; bodyBytes: number } {
    const view = new DataView(header.buffer, header.byteOffset, FRAME_HEADER_BYTES);
    const code = view.getUint8(4);
    const name = NAMES_BY_CODE.get(code);
    if (name === undefined) throw new ProtocolViolation(`unknown message type ${code}`);
    if (header[5] !== 0 || header[6] !== 0 || header[7] !== 0) {
      throw new ProtocolViolation(`reserved bytes of a ${name} frame are not zero`);
    }
    const sequence = view.getUint32(8, true);
    if (sequence !== this.#sequence) {
      throw new ProtocolViolation(`frame number ${sequence} where ${this.#sequence} was due`);
    }
    const definition: MessageDefinition = MESSAGES[name];
    const bodyBytes = view.getUint32(0, true);
    if (bodyBytes > maxBodyBytes(definition)) {
      throw new ProtocolViolation(
        `${name} of ${bodyBytes} bytes, at most ${maxBodyBytes(definition)} are allowed`,
      );
    }
    return { definition, name, bodyBytes };
  }
}

function decodeBody(name: MessageName, definition: MessageDefinition, body: Uint8Array): Message {
  const reader = new BodyReader(name, body);
  const message: Record<string, unknown> = { type: name };
  for (const [field, type] of Object.entries(definition.fields)) message[field] = reader.field(type);
  reader.end();
  return message as unknown as Message;
}

class BodyReader {
  readonly #name: string;
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  #offset = 0;

  constructor(name: string, bytes: Uint8Array) {
    this.#name = name;
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  field(type: FieldType): unknown {
    switch (type) {
      case 'u8':
        return this.#view.getUint8(this.#advance(1));
      case 'u16':
        return this.#view.getUint16(this.#advance(2), true);
      case 'u32':
        return this.#u32();
      case 'u64':
        return this.#u64();
      case 'bool':
        return this.#bool();
      case 'text':
        return this.#text();
      case 'bytes': {
        const length = this.#u32();
        const start = this.#advance(length);
        return this.#bytes.subarray(start, start + length);
      }
      case 'varints':
        return this.#varints();
      case 'texts':
        return this.#texts();
    }
  }

  end(): void {
    const extra = this.#bytes.length - this.#offset;
    if (extra !== 0) this.#fail(`${extra} bytes after its last field`);
  }

  #u32(): number {
    return this.#view.getUint32(this.#advance(4), true);
  }

  #u64(): number {
    const at = this.#advance(8);
    const value = this.#view.getUint32(at, true) + this.#view.getUint32(at + 4, true) * 2 ** 32;
    if (!Number.isSafeInteger(value)) this.#fail('a number beyond 2^53-1');
    return value;
  }

  #bool(): boolean {
    const value = this.#view.getUint8(this.#advance(1));
    if (value > 1) this.#fail(`${value} where 0 or 1 was due`);
    return value === 1;
  }

  #text(): string {
    const length = this.#u32();
    if (length > MAX_TEXT_BYTES)
      this.#fail(`a text of ${length} bytes, at most ${MAX_TEXT_BYTES} are allowed`);
    const start = this.#advance(length);
    try {
      return utf8.decode(this.#bytes.subarray(start, start + length));
    } catch {
      return this.#fail('a text that is not UTF-8');
    }
  }

  #texts(): string[] {
    const count = this.#u32();
    if (count > MAX_TEXTS) this.#fail(`${count} texts, at most ${MAX_TEXTS} are allowed`);
    const texts: string[] = [];
    for (let i = 0; i < count; i++) texts.push(this.#text());
    return texts;
  }

  #varints(): number[] {
    const count = this.#u32();
    // Each number takes at least one byte, so a count beyond the body is refused before memory is taken.
    if (count > this.#bytes.length - this.#offset) this.#fail(`${count} numbers in too few bytes`);
    const values: number[] = [];
    for (let i = 0; i < count; i++) values.push(this.#varint());
    return values;
  }

  #varint(): number {
    let value = 0;
    for (let factor = 1; factor <= 128 ** 7; factor *= 128) {
      const byte = this.#view.getUint8(this.#advance(1));
      value += (byte % 128) * factor;
      if (byte < 128) {
        if (byte === 0 && factor > 1) this.#fail('a number with a needless last byte');
        if (!Number.isSafeInteger(value)) this.#fail('a number beyond 2^53-1');
        return value;
      }
    }
    return this.#fail('a number beyond 2^53-1');
  }

  #advance(bytes: number): number {
    const start = this.#offset;
    if (bytes > this.#bytes.length - start) this.#fail(`a body that ends ${bytes} bytes too early`);
    this.#offset = start + bytes;
    return start;
  }

  #fail(what: string): never {
    throw new ProtocolViolation(`${this.#name} has ${what}`);
  }
}

/** Smaller pieces are copied together: an object for each costs some 300 bytes, however small it is. */
const SMALL_PIECE_BYTES = 4096;

/** At least three quarters of a block get filled. */
const SMALL_PIECES_BLOCK_BYTES = 4 * SMALL_PIECE_BYTES;

interface Piece {
  bytes: Uint8Array;
  /** True for a piece as it was pushed, without a view of it in other hands. */
  isAlone: boolean;
}

/**
 * Bytes that arrived in pieces. Large pieces are joined only when a whole frame is taken, so each byte is copied at
 * most once. Small pieces are gathered in blocks, so that they cost little more memory than their length.
 */
class PieceQueue {
  readonly #onTaken: ((piece: Uint8Array) => void) | undefined;
  readonly #pieces: Piece[] = [];
  /** Bytes of the first piece that were taken. */
  #start = 0;
  /** Gathers small pieces, filled up to `#blockFilled`; filled bytes never change. */
  #block = new Uint8Array(0);
  #blockFilled = 0;
  length = 0;

  constructor(onTaken: ((piece: Uint8Array) => void) | undefined) {
    this.#onTaken = onTaken;
  }

  push(bytes: Uint8Array): void {
    if (bytes.length === 0) return;
    if (bytes.length < SMALL_PIECE_BYTES) this.#gather(bytes);
    else this.#pieces.push({ bytes, isAlone: true });
    this.length += bytes.length;
  }

  #gather(bytes: Uint8Array): void {
    if (this.#block.length - this.#blockFilled < bytes.length) {
      this.#block = new Uint8Array(SMALL_PIECES_BLOCK_BYTES);
      this.#blockFilled = 0;
    }
    this.#block.set(bytes, this.#blockFilled);
    const end = this.#blockFilled + bytes.length;
    const last = this.#pieces.at(-1);
    const continues =
      last?.bytes.buffer === this.#block.buffer &&
      last.bytes.byteOffset + last.bytes.length === this.#blockFilled;
    if (continues) last.bytes = this.#block.subarray(last.bytes.byteOffset, end);
    else this.#pieces.push({ bytes: this.#block.subarray(this.#blockFilled, end), isAlone: false });
    this.#blockFilled = end;
  }

  /** A copy of the first bytes, at most `length`, in `into` if given; the queue keeps them. */
  peek(length: number, into?: Uint8Array): Uint8Array {
    const bytes = Math.min(length, this.length);
    const joined = into === undefined ? new Uint8Array(bytes) : into.subarray(0, bytes);
    let from = this.#start;
    for (let i = 0, filled = 0; filled < bytes; i++) {
      const part = (this.#pieces[i] as Piece).bytes.subarray(from, from + bytes - filled);
      joined.set(part, filled);
      filled += part.length;
      from = 0;
    }
    return joined;
  }

  /** Takes the first `length` bytes, which must be there, out of the queue. */
  take(length: number, into?: Uint8Array): Uint8Array {
    const [first] = this.#pieces;
    let taken: Uint8Array;
    if (first !== undefined && first.bytes.length - this.#start >= length) {
      taken = first.bytes.subarray(this.#start, this.#start + length);
      first.isAlone = false;
    } else taken = this.peek(length, into);
    this.#drop(length);
    return taken;
  }

  #drop(length: number): void {
    this.length -= length;
    this.#start += length;
    let whole = 0;
    for (const { bytes, isAlone } of this.#pieces) {
      if (bytes.length > this.#start) break;
      this.#start -= bytes.length;
      whole++;
      if (isAlone) this.#onTaken?.(bytes);
    }
    this.#pieces.splice(0, whole);
  }
}
