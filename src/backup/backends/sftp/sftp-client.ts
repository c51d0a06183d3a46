import { SqlsyncError, sanitizeText } from '../../../errors.ts';
import type { Transport } from '../../../transport/transport.ts';
import { MAX_PACKET_BYTES, OPEN_FLAGS, PACKET, PacketReader, PacketWriter, STATUS } from './packets.ts';
import type { FileAttributes } from './packets.ts';

/** A request that the server refused. */
export class SftpRefused extends Error {
  readonly status: number;

  constructor(status: number, message: string) {
    super(message === '' ? `SFTP status ${status}` : message);
    this.status = status;
  }
}

/** Bytes of one read or write. Every server takes so many. */
const PIECE_BYTES: number = 32 * 1024;

/** Pieces that are under way for one file: a long round trip needs many. */
const MAX_PIECES = 64;

/** Without an answer for so long, although one is due, the server counts as lost. */
const SILENCE_MS: number = 5 * 60 * 1000;

interface Answer {
  readonly type: number;
  readonly fields: PacketReader;
}

interface Waiting {
  readonly resolve: (answer: Answer) => void;
  readonly reject: (error: unknown) => void;
}

export interface ListedFile extends FileAttributes {
  readonly name: string;
}

/** OpenSSH's extensions that a store makes use of. */
export const EXTENSIONS = {
  hardlink: 'hardlink@openssh.com',
  fsync: 'fsync@openssh.com',
  rename: 'posix-rename@openssh.com',
  statvfs: 'statvfs@openssh.com',
} as const;

/**
 * Talks to an SFTP server over a byte stream. Any number of requests may be under way. Requests throw SftpRefused, and
 * SqlsyncError if the connection is lost.
 */
export class SftpClient {
  readonly #transport: Transport;
  readonly #extensions = new Map<string, string>();
  readonly #waiting = new Map<number, Waiting>();
  #nextId = 1;
  #unread: Buffer = Buffer.alloc(0);
  #version: Waiting | undefined;
  #lost: unknown;
  #silence: NodeJS.Timeout | undefined;
  /** What waits for the server to take more. */
  readonly #draining: (() => void)[] = [];

  private constructor(transport: Transport) {
    this.#transport = transport;
    transport.input.on('data', (bytes: Buffer) => this.#receive(bytes));
    transport.input.on('error', (error) => this.#lose(error));
    transport.input.on('end', () => this.#lose(this.#ended()));
    transport.output.on('error', () => {}); // `input` reports it
    transport.output.on('drain', () => this.#drain());
  }

  /** Greets the server at the other end. */
  static async open(transport: Transport): Promise<SftpClient> {
    const client = new SftpClient(transport);
    const version = new Promise<Answer>((resolve, reject) => (client.#version = { resolve, reject }));
    client.#watch();
    client.#send(PACKET.init, new PacketWriter().u32(3).take());
    try {
      const { fields } = await version;
      const number = fields.u32();
      if (number < 3)
        throw new SqlsyncError(
          'STORE_UNAVAILABLE',
          `The server speaks version ${number} of SFTP; expected 3`,
        );
      while (!fields.isAtEnd) client.#extensions.set(fields.text(), fields.text());
      return client;
    } catch (error) {
      client.close();
      throw error;
    }
  }

  has(extension: string): boolean {
    return this.#extensions.has(extension);
  }

  /** True once no request can succeed any more. */
  get isLost(): boolean {
    return this.#lost !== undefined;
  }

  close(): void {
    this.#lose(new Error('closed'));
  }

  async openFile(path: string, flags: number, mode = 0o600): Promise<Buffer> {
    const fields = new PacketWriter().text(path).u32(flags).mode(mode);
    return this.#handle(await this.#ask(PACKET.open, fields));
  }

  openToRead(path: string): Promise<Buffer> {
    return this.openFile(path, OPEN_FLAGS.read);
  }

  async closeHandle(handle: Uint8Array): Promise<void> {
    this.#done(await this.#ask(PACKET.close, new PacketWriter().bytes(handle)));
  }

  /** Writes the pieces one after another, from the beginning of the file. */
  async write(handle: Uint8Array, pieces: readonly Uint8Array[]): Promise<void> {
    const underWay = new Set<Promise<void>>();
    let failure: { readonly error: unknown } | undefined;
    let at = 0;
    for (const piece of pieces) {
      for (let from = 0; from < piece.length; from += PIECE_BYTES) {
        while (underWay.size >= MAX_PIECES) await Promise.race(underWay);
        if (failure !== undefined) throw failure.error;
        const some = piece.subarray(from, from + PIECE_BYTES);
        const fields = new PacketWriter().bytes(handle).u64(at).bytes(some);
        at += some.length;
        const writing: Promise<void> = this.#ask(PACKET.write, fields)
          .then((answer) => this.#done(answer))
          .catch((error: unknown) => void (failure ??= { error }))
          .finally(() => underWay.delete(writing));
        underWay.add(writing);
        await this.#drained();
      }
    }
    await Promise.all(underWay);
    if (failure !== undefined) throw failure.error;
  }

  /** The bytes of a part of a file; fewer if the file ends before. */
  async read(handle: Uint8Array, offset: number, length: number): Promise<Uint8Array> {
    const into = new Uint8Array(length);
    let end = length;
    const readPiece = async (from: number): Promise<void> => {
      const piece = into.subarray(from, from + PIECE_BYTES);
      const read = await this.#readPiece(handle, offset + from, piece);
      if (read < piece.length) end = Math.min(end, from + read);
    };
    const underWay = new Set<Promise<void>>();
    let failure: { readonly error: unknown } | undefined;
    for (let from = 0; from < end && failure === undefined; from += PIECE_BYTES) {
      while (underWay.size >= MAX_PIECES) await Promise.race(underWay);
      const reading: Promise<void> = readPiece(from)
        .catch((error: unknown) => void (failure ??= { error }))
        .finally(() => underWay.delete(reading));
      underWay.add(reading);
    }
    await Promise.all(underWay);
    if (failure !== undefined) throw failure.error;
    return end === length ? into : into.slice(0, end);
  }

  /** A server may give fewer bytes than requested at any time; only its word for the end is the end. */
  async #readPiece(handle: Uint8Array, offset: number, into: Uint8Array): Promise<number> {
    let filled = 0;
    while (filled < into.length) {
      const fields = new PacketWriter()
        .bytes(handle)
        .u64(offset + filled)
        .u32(into.length - filled);
      const { type, fields: answer } = await this.#ask(PACKET.read, fields);
      if (type !== PACKET.data) {
        const status = answer.u32();
        if (status === STATUS.eof) return filled;
        throw refused(status, answer);
      }
      const bytes = answer.bytes();
      if (bytes.length === 0 || bytes.length > into.length - filled) throw impossible('a read');
      into.set(bytes, filled);
      filled += bytes.length;
    }
    return filled;
  }

  async fstat(handle: Uint8Array): Promise<FileAttributes> {
    return this.#attributes(await this.#ask(PACKET.fstat, new PacketWriter().bytes(handle)));
  }

  async stat(path: string): Promise<FileAttributes> {
    return this.#attributes(await this.#ask(PACKET.stat, new PacketWriter().text(path)));
  }

  async list(path: string): Promise<ListedFile[]> {
    const handle = this.#handle(await this.#ask(PACKET.opendir, new PacketWriter().text(path)));
    const files: ListedFile[] = [];
    try {
      for (;;) {
        const { type, fields } = await this.#ask(PACKET.readdir, new PacketWriter().bytes(handle));
        if (type !== PACKET.name) {
          const status = fields.u32();
          if (status === STATUS.eof) return files;
          throw refused(status, fields);
        }
        for (let count = fields.u32(); count > 0; count--) {
          const name = fields.text();
          fields.bytes(); // as `ls -l` shows it
          files.push({ name, ...fields.attributes() });
        }
      }
    } finally {
      await this.closeHandle(handle);
    }
  }

  async remove(path: string): Promise<void> {
    this.#done(await this.#ask(PACKET.remove, new PacketWriter().text(path)));
  }

  async makeFolder(path: string): Promise<void> {
    this.#done(await this.#ask(PACKET.mkdir, new PacketWriter().text(path).mode(0o700)));
  }

  /** As the protocol has it: fails if there is a file of the new name. */
  async rename(from: string, to: string): Promise<void> {
    this.#done(await this.#ask(PACKET.rename, new PacketWriter().text(from).text(to)));
  }

  /** Requests an extension whose fields are texts. */
  async extended(extension: string, ...texts: readonly string[]): Promise<void> {
    const fields = new PacketWriter().text(extension);
    for (const text of texts) fields.text(text);
    this.#done(await this.#ask(PACKET.extended, fields));
  }

  async fsync(handle: Uint8Array): Promise<void> {
    this.#done(await this.#ask(PACKET.extended, new PacketWriter().text(EXTENSIONS.fsync).bytes(handle)));
  }

  /** Bytes that a user may still write to the file system of a path; undefined if the server does not tell. */
  async freeBytes(path: string): Promise<number | undefined> {
    if (!this.has(EXTENSIONS.statvfs)) return undefined;
    const fields = new PacketWriter().text(EXTENSIONS.statvfs).text(path);
    const answer = await this.#ask(PACKET.extended, fields);
    if (answer.type !== PACKET.extendedReply) return undefined;
    answer.fields.u64(); // the block size
    const [fragment, , , available] = [0, 0, 0, 0].map(() => answer.fields.u64()) as [
      number,
      number,
      number,
      number,
    ];
    return fragment * available;
  }

  #handle({ type, fields }: Answer): Buffer {
    if (type === PACKET.handle) return Buffer.from(fields.bytes());
    throw refused(fields.u32(), fields);
  }

  #attributes({ type, fields }: Answer): FileAttributes {
    if (type === PACKET.attrs) return fields.attributes();
    throw refused(fields.u32(), fields);
  }

  #done({ type, fields }: Answer): void {
    if (type !== PACKET.status) throw impossible('a request');
    const status = fields.u32();
    if (status !== STATUS.ok) throw refused(status, fields);
  }

  #ask(type: number, fields: PacketWriter): Promise<Answer> {
    return new Promise((resolve, reject) => {
      if (this.#lost !== undefined) return reject(this.#lost);
      const id = this.#nextId;
      this.#nextId = (this.#nextId + 1) >>> 0;
      this.#waiting.set(id, { resolve, reject });
      this.#watch();
      const head = new PacketWriter().u32(id).take();
      this.#send(type, head, fields.take());
    });
  }

  #send(type: number, ...parts: readonly Uint8Array[]): void {
    const length = parts.reduce((sum, part) => sum + part.length, 1);
    const head = Buffer.alloc(5);
    head.writeUInt32BE(length);
    head[4] = type;
    this.#transport.output.write(Buffer.concat([head, ...parts]));
  }

  async #drained(): Promise<void> {
    const { output } = this.#transport;
    if (!output.writableNeedDrain || this.#lost !== undefined) return;
    await new Promise<void>((resolve) => this.#draining.push(resolve));
  }

  /** One listener for all: each of many writers with one of its own would look like a leak. */
  #drain(): void {
    for (const go of this.#draining.splice(0)) go();
  }

  #receive(bytes: Buffer): void {
    this.#unread = this.#unread.length === 0 ? bytes : Buffer.concat([this.#unread, bytes]);
    try {
      for (;;) {
        if (this.#unread.length < 5) break;
        const length = this.#unread.readUInt32BE(0);
        if (length < 1 || length > MAX_PACKET_BYTES) throw this.#noSftp();
        if (this.#unread.length < 4 + length) break;
        const packet = this.#unread.subarray(4, 4 + length);
        this.#unread = this.#unread.subarray(4 + length);
        this.#take(packet[0] as number, packet.subarray(1));
      }
    } catch (error) {
      this.#lose(error);
    }
    if (this.#waiting.size > 0) this.#watch();
    else clearTimeout(this.#silence);
  }

  #take(type: number, body: Buffer): void {
    const fields = new PacketReader(body);
    if (this.#version !== undefined) {
      if (type !== PACKET.version) throw this.#noSftp();
      this.#version.resolve({ type, fields });
      this.#version = undefined;
      return;
    }
    const id = fields.u32();
    const waiting = this.#waiting.get(id);
    if (waiting === undefined) throw impossible('a request that was not made');
    this.#waiting.delete(id);
    waiting.resolve({ type, fields });
  }

  #watch(): void {
    clearTimeout(this.#silence);
    this.#silence = setTimeout(() => {
      this.#lose(
        new SqlsyncError(
          'TIMEOUT',
          `${this.#transport.description} did not answer for ${SILENCE_MS / 1000} s`,
        ),
      );
    }, SILENCE_MS);
    this.#silence.unref();
  }

  #lose(error: unknown): void {
    if (this.#lost !== undefined) return;
    this.#lost = error;
    this.#transport.terminate();
    this.#drain();
    clearTimeout(this.#silence);
    this.#version?.reject(error);
    for (const { reject } of this.#waiting.values()) reject(error);
    this.#waiting.clear();
  }

  #ended(): SqlsyncError {
    const advice = this.#version && { hint: 'Check that the host offers SFTP: sftp HOST.' };
    return new SqlsyncError('CONNECTION_LOST', `${this.#transport.description} ended the connection`, advice);
  }

  /** Mostly the text that a login prints. */
  #noSftp(): SqlsyncError {
    const said = sanitizeText(this.#unread.subarray(0, 100).toString('latin1'), 60);
    return new SqlsyncError(
      'PROTOCOL',
      `${this.#transport.description} does not speak SFTP; it sent "${said}"`,
      {
        hint: 'A login there may print something: it must not, for a login without a terminal.',
      },
    );
  }
}

function refused(status: number, fields: PacketReader): SftpRefused {
  return new SftpRefused(status, fields.isAtEnd ? '' : sanitizeText(fields.text(), 200));
}

function impossible(what: string): SqlsyncError {
  return new SqlsyncError('PROTOCOL', `The SFTP server answered ${what} in a way that is not possible`);
}
