import { closeSync, fsyncSync, openSync, readSync, writeSync } from 'node:fs';
import { parseBtreePage } from '../../pages/btree-page.ts';
import type { BtreePage, PagePointer } from '../../pages/btree-page.ts';

/** A database file that no other program has open, changed page by page without SQLite. Throws the system's errors. */
export class PageFile {
  readonly path: string;
  readonly pageSize: number;
  readonly pageCount: number;
  readonly #descriptor: number;

  constructor(path: string, pageSize: number, pageCount: number) {
    this.path = path;
    this.pageSize = pageSize;
    this.pageCount = pageCount;
    this.#descriptor = openSync(path, 'r+');
  }

  /** Bytes of a page that SQLite uses; some may be reserved at its end. */
  get usable(): number {
    return this.pageSize - this.#bytes(1, 20, 1).readUInt8(0);
  }

  read(page: number): Uint8Array {
    return this.#bytes(page, 0, this.pageSize);
  }

  readNumber(page: number, at: number): number {
    return this.#bytes(page, at, 4).readUInt32BE(0);
  }

  /** undefined for a page that is not part of a b-tree. */
  readBtreePage(page: number): BtreePage | undefined {
    return parseBtreePage(this.read(page), page, this.usable);
  }

  write(page: number, bytes: Uint8Array): void {
    this.#write(page, 0, bytes);
  }

  writeNumber({ page, at }: PagePointer, number: number): void {
    const bytes = Buffer.alloc(4);
    bytes.writeUInt32BE(number);
    this.#write(page, at, bytes);
  }

  has(page: number): boolean {
    return page >= 1 && page <= this.pageCount;
  }

  sync(): void {
    fsyncSync(this.#descriptor);
  }

  close(): void {
    closeSync(this.#descriptor);
  }

  /** Bytes beyond the end of the file read as zeros. */
  #bytes(page: number, at: number, length: number): Buffer {
    const bytes = Buffer.alloc(length);
    const offset = (page - 1) * this.pageSize + at;
    for (let filled = 0; filled < length;) {
      const read = readSync(this.#descriptor, bytes, filled, length - filled, offset + filled);
      if (read === 0) break;
      filled += read;
    }
    return bytes;
  }

  #write(page: number, at: number, bytes: Uint8Array): void {
    const offset = (page - 1) * this.pageSize + at;
    for (let written = 0; written < bytes.length;)
      written += writeSync(this.#descriptor, bytes, written, bytes.length - written, offset + written);
  }
}
