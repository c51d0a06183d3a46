/**
 * The packets of SFTP version 3 (draft-ietf-secsh-filexfer-02), which OpenSSH and nearly every other server speak, with
 * OpenSSH's extensions (PROTOCOL, section 4).
 */

/** Types of packets, as far as a client of a store needs them. */
export const PACKET = {
  init: 1,
  version: 2,
  open: 3,
  close: 4,
  read: 5,
  write: 6,
  fstat: 8,
  opendir: 11,
  readdir: 12,
  remove: 13,
  mkdir: 14,
  stat: 17,
  rename: 18,
  status: 101,
  handle: 102,
  data: 103,
  name: 104,
  attrs: 105,
  extended: 200,
  extendedReply: 201,
} as const;

export const STATUS = {
  ok: 0,
  eof: 1,
  noSuchFile: 2,
  permissionDenied: 3,
  /** Anything else; OpenSSH says it for a name that is taken and for a full disk alike. */
  failure: 4,
  unsupported: 8,
  /** Of a later version of the protocol; some servers say them all the same. */
  noSpace: 14,
  quotaExceeded: 15,
} as const;

export const OPEN_FLAGS = { read: 1, write: 2, create: 8, exclusive: 0x20 } as const;

const ATTRIBUTES = { size: 1, owner: 2, permissions: 4, times: 8, extended: 0x80000000 } as const;

/** The most bytes that a packet of ours or of a server may have. */
export const MAX_PACKET_BYTES: number = 512 * 1024;

export interface FileAttributes {
  readonly bytes: number | undefined;
  readonly mode: number | undefined;
  readonly modified: Date | undefined;
}

/** Builds the fields of a packet. */
export class PacketWriter {
  #bytes = Buffer.allocUnsafe(256);
  #length = 0;

  u32(value: number): this {
    this.#room(4);
    this.#bytes.writeUInt32BE(value >>> 0, this.#length);
    this.#length += 4;
    return this;
  }

  u64(value: number): this {
    return this.u32(Math.floor(value / 2 ** 32)).u32(value % 2 ** 32);
  }

  bytes(value: Uint8Array): this {
    this.u32(value.length);
    this.#room(value.length);
    this.#bytes.set(value, this.#length);
    this.#length += value.length;
    return this;
  }

  text(value: string): this {
    return this.bytes(Buffer.from(value));
  }

  /** Attributes with nothing but permission bits. */
  mode(permissions: number): this {
    return this.u32(ATTRIBUTES.permissions).u32(permissions);
  }

  take(): Uint8Array {
    return this.#bytes.subarray(0, this.#length);
  }

  #room(length: number): void {
    if (this.#length + length <= this.#bytes.length) return;
    const larger = Buffer.allocUnsafe((this.#length + length) * 2);
    this.#bytes.copy(larger, 0, 0, this.#length);
    this.#bytes = larger;
  }
}

/** Reads the fields of a packet. Throws an Error if it ends too early. */
export class PacketReader {
  readonly #bytes: Buffer;
  #at = 0;

  constructor(bytes: Uint8Array) {
    this.#bytes = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
  }

  get isAtEnd(): boolean {
    return this.#at >= this.#bytes.length;
  }

  u32(): number {
    const at = this.#skip(4);
    return this.#bytes.readUInt32BE(at);
  }

  u64(): number {
    return this.u32() * 2 ** 32 + this.u32();
  }

  /** A view. */
  bytes(): Buffer {
    const length = this.u32();
    const at = this.#skip(length);
    return this.#bytes.subarray(at, at + length);
  }

  text(): string {
    return this.bytes().toString('utf8');
  }

  attributes(): FileAttributes {
    const flags = this.u32();
    const bytes = (flags & ATTRIBUTES.size) === 0 ? undefined : this.u64();
    if ((flags & ATTRIBUTES.owner) !== 0) this.#skip(8);
    const mode = (flags & ATTRIBUTES.permissions) === 0 ? undefined : this.u32();
    let modified: Date | undefined;
    if ((flags & ATTRIBUTES.times) !== 0) {
      this.u32(); // the last access
      modified = new Date(this.u32() * 1000);
    }
    if ((flags & ATTRIBUTES.extended) !== 0) {
      for (let pairs = this.u32(); pairs > 0; pairs--) for (let i = 0; i < 2; i++) this.bytes();
    }
    return { bytes, mode, modified };
  }

  #skip(length: number): number {
    const at = this.#at;
    if (at + length > this.#bytes.length) throw new Error('a packet that ends too early');
    this.#at += length;
    return at;
  }
}
