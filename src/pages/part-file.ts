import {
  closeSync,
  constants,
  fchmodSync,
  fsyncSync,
  ftruncateSync,
  lstatSync,
  openSync,
  readSync,
  rmSync,
  writeSync,
} from 'node:fs';
import type { PageSource, SinkTarget } from './page-source.ts';
import type { PageCount, PageNumber, PageSize } from './page-types.ts';
import { lockBytePage, pageCount } from './page-types.ts';

/** Neighbouring pages are collected up to this and written at once. */
const WRITE_BYTES = 1024 * 1024;

/**
 * A database under construction: a plain file that is written page by page, outside SQLite. Whoever uses it holds
 * the lock that goes with it. What an interrupted run left in it is the old version of the next run.
 */
export class PartFile {
  readonly path: string;
  /** The leftover to go on from, or undefined. */
  readonly old: PageSource | undefined;
  readonly #target: SinkTarget;
  #descriptor: number | undefined;
  readonly #buffer = new Uint8Array(WRITE_BYTES);
  #bufferStart = 0;
  #bufferLength = 0;
  #closed = false;

  /** Opens what an interrupted run left; makes nothing yet. */
  constructor(path: string, target: SinkTarget) {
    this.path = path;
    this.#target = target;
    const leftover = lstatSync(path, { throwIfNoEntry: false });
    // A second link means that somebody else uses these bytes; a link elsewhere, that they are not ours to change.
    const usable = leftover !== undefined && leftover.isFile() && leftover.nlink === 1;
    if (usable) this.#descriptor = openSync(path, constants.O_RDWR | constants.O_NOFOLLOW);
    const pages = usable ? Math.floor(leftover.size / target.pageSize) : 0;
    this.old = pages === 0 ? undefined : this.#asSource(pageCount(pages));
  }

  /** Makes the file where there was no usable leftover; must come before the first write. */
  begin(): void {
    if (this.#descriptor !== undefined) return;
    rmSync(this.path, { force: true });
    this.#descriptor = openSync(this.path, constants.O_RDWR | constants.O_CREAT | constants.O_EXCL, 0o600);
  }

  write(page: PageNumber, bytes: Uint8Array): void {
    const offset = (page - 1) * this.#target.pageSize;
    if (
      offset !== this.#bufferStart + this.#bufferLength ||
      this.#bufferLength + bytes.length > WRITE_BYTES
    ) {
      this.#flush();
      this.#bufferStart = offset;
    }
    this.#buffer.set(bytes, this.#bufferLength);
    this.#bufferLength += bytes.length;
  }

  read(page: PageNumber): Uint8Array {
    return this.readRun(page, 1);
  }

  readRun(first: PageNumber, count: number): Uint8Array {
    this.#flush();
    const descriptor = this.#open();
    const size = this.#target.pageSize;
    const bytes = new Uint8Array(count * size);
    for (let filled = 0; filled < bytes.length;) {
      const offset = (first - 1) * size + filled;
      const read = readSync(descriptor, bytes, filled, bytes.length - filled, offset);
      if (read === 0) {
        // Only the lock-byte page, which is never written, can lie beyond the end of the file; it reads as zeros.
        if (first + Math.floor(filled / size) === lockBytePage(size)) break;
        throw new Error(`${this.path} is truncated`);
      }
      filled += read;
    }
    return bytes;
  }

  /** Gives the file its final length and permission bits (those of the origin less the umask) and makes it durable. */
  finish(): void {
    this.#flush();
    const descriptor = this.#open();
    ftruncateSync(descriptor, this.#target.pageCount * this.#target.pageSize);
    fchmodSync(descriptor, this.#target.fileMode & 0o666 & ~process.umask());
    fsyncSync(descriptor);
  }

  /** Closes the file and leaves it for the next run to go on from. */
  close(): void {
    if (this.#closed || this.#descriptor === undefined) return;
    this.#closed = true;
    try {
      this.#flush();
    } finally {
      closeSync(this.#descriptor);
    }
  }

  remove(): void {
    this.#bufferLength = 0;
    this.close();
    rmSync(this.path, { force: true });
  }

  #flush(): void {
    let written = 0;
    while (written < this.#bufferLength) {
      const left = this.#bufferLength - written;
      written += writeSync(this.#open(), this.#buffer, written, left, this.#bufferStart + written);
    }
    this.#bufferStart += this.#bufferLength;
    this.#bufferLength = 0;
  }

  #open(): number {
    if (this.#descriptor === undefined) throw new Error('the part file was not begun');
    return this.#descriptor;
  }

  #asSource(count: PageCount): PageSource {
    const size: PageSize = this.#target.pageSize;
    return {
      pageSize: size,
      pageCount: count,
      readPage: (page) => this.read(page),
      readPages: (first, pages) => this.readRun(first, pages),
      close: () => {},
    };
  }
}
