import { closeSync, openSync, readSync, rmSync, writeSync } from 'node:fs';
import { besideReplica } from './mark.ts';
import type { SinkTarget } from './page-source.ts';
import type { PageNumber } from './page-types.ts';
import { pageNumber } from './page-types.ts';

/**
 * Pages that wait beside a replica until all of them are there and checked: a sparse file in which each page stands
 * at its place in the database, and a bit for each page in memory. Whoever uses it holds the replica's write lock.
 */
export class Spool {
  readonly #path: string;
  readonly #pageBytes: number;
  readonly #pageCount: number;
  readonly #held: Uint8Array;
  #descriptor: number | undefined;

  constructor(replicaPath: string, target: SinkTarget) {
    this.#path = besideReplica(replicaPath, '-spool');
    this.#pageBytes = target.pageSize;
    this.#pageCount = target.pageCount;
    this.#held = new Uint8Array(Math.ceil((target.pageCount + 1) / 8));
  }

  /** Makes the file, in place of one that a killed run left. */
  open(): void {
    rmSync(this.#path, { force: true });
    this.#descriptor = openSync(this.#path, 'wx+', 0o600);
  }

  write(page: PageNumber, bytes: Uint8Array): void {
    const descriptor = this.#open();
    const offset = (page - 1) * this.#pageBytes;
    let written = 0;
    while (written < bytes.length) {
      written += writeSync(descriptor, bytes, written, bytes.length - written, offset + written);
    }
    this.#held[page >> 3] = (this.#held[page >> 3] ?? 0) | (1 << (page & 7));
  }

  /** The page as it was written; undefined where it was not. */
  read(page: PageNumber): Uint8Array | undefined {
    if (!this.#holds(page)) return undefined;
    const bytes = new Uint8Array(this.#pageBytes);
    const read = readSync(this.#open(), bytes, 0, bytes.length, (page - 1) * this.#pageBytes);
    if (read !== bytes.length) throw new Error(`${this.#path} is truncated at page ${page}`);
    return bytes;
  }

  /** The pages it holds, ascending. */
  *pages(): IterableIterator<PageNumber> {
    for (let page = 1; page <= this.#pageCount; page++)
      if (this.#holds(pageNumber(page))) yield pageNumber(page);
  }

  /** Closes and deletes the file. Never throws: a leftover is removed by the next run. */
  remove(): void {
    if (this.#descriptor === undefined) return;
    try {
      closeSync(this.#descriptor);
      rmSync(this.#path, { force: true });
    } catch {
      // See above.
    }
    this.#descriptor = undefined;
  }

  #holds(page: PageNumber): boolean {
    return ((this.#held[Math.floor(page / 8)] ?? 0) & (1 << (page & 7))) !== 0;
  }

  #open(): number {
    if (this.#descriptor === undefined) throw new Error('the spool is not open');
    return this.#descriptor;
  }
}
