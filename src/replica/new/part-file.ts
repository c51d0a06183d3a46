import {
  closeSync,
  constants,
  fchmodSync,
  fstatSync,
  fsyncSync,
  ftruncateSync,
  lstatSync,
  openSync,
  readSync,
  rmSync,
  writeSync,
} from 'node:fs';
import { BackgroundWriter } from './background-writer.ts';
import { giveToOwner } from '../../files/ownership.ts';
import { removeUnusable } from '../../beside/leftovers.ts';
import { mendClone } from '../../pages/clone-pages.ts';
import { copyPages } from '../../pages/copy-pages.ts';
import type { CopyPagesOptions, PageSource, SinkTarget } from '../../pages/page-source.ts';
import type { PageCount, PageNumber, PageSize } from '../../pages/page-types.ts';
import { lockBytePage, pageCount } from '../../pages/page-types.ts';
import { replicaError } from '../replica-error.ts';

const SECOND_PAGE = 2 as PageNumber;

/** Bytes that may wait for the disk while more arrive. */
const MAX_WAITING_BYTES = 8 * 1024 * 1024;

/**
 * A database under construction: a plain file written page by page, without SQLite. Its user holds the lock that goes
 * with it. The part file of an interrupted run is the old version for the next run.
 */
export class PartFile {
  readonly path: string;
  /** The leftover to continue from, or undefined. */
  readonly old: PageSource | undefined;
  readonly #target: SinkTarget;
  #descriptor: number | undefined;
  #writer: BackgroundWriter | undefined;
  #closed = false;

  /** Opens what an interrupted run left; creates nothing yet. */
  constructor(path: string, target: SinkTarget) {
    this.path = path;
    this.#target = target;
    const leftover = lstatSync(path, { throwIfNoEntry: false });
    // Refuses a leftover with a second link (another program uses these bytes), a symbolic link (the bytes are not ours
    // to change), and another owner (who could change the bytes after we checked them).
    const usable =
      leftover?.isFile() === true && leftover.nlink === 1 && leftover.uid === ownUid(leftover.uid);
    if (usable) this.#descriptor = openSync(path, constants.O_RDWR | constants.O_NOFOLLOW);
    const pages = usable ? Math.floor(leftover.size / target.pageSize) : 0;
    this.old = pages === 0 ? undefined : this.#asSource(pageCount(pages));
  }

  /** Creates the file unless there is a usable leftover. Must come before the first write. */
  begin(): void {
    if (this.#descriptor !== undefined) return;
    removeUnusable(this.path);
    this.#descriptor = openSync(this.path, constants.O_RDWR | constants.O_CREAT | constants.O_EXCL, 0o600);
  }

  /** Takes a copy of a page, and writes it in the background. */
  write(page: PageNumber, bytes: Uint8Array): void {
    this.#writer ??= new BackgroundWriter(this.#open());
    this.#writer.write((page - 1) * this.#target.pageSize, bytes);
  }

  /** Copies all pages but the first, and compares what the file then has. */
  copyRest(source: PageSource, options: CopyPagesOptions): Promise<void> {
    const descriptor = this.#open();
    const rest = { ...options, first: SECOND_PAGE };
    const clones = options.reflink === true && source.cloneTo !== undefined && source.pageCount > 0;
    if (!clones) return copyPages(source, descriptor, rest);
    source.cloneTo?.(descriptor);
    // Nobody can open a part file as a database by mistake.
    writeSync(descriptor, new Uint8Array(source.pageSize), 0, source.pageSize, 0);
    return mendClone(source, descriptor, rest);
  }

  /** Resolves when more pages may come. */
  async ready(): Promise<void> {
    await this.#writer?.written(MAX_WAITING_BYTES);
  }

  /** Resolves when every page can be read. */
  async written(): Promise<void> {
    await this.#writer?.written(0);
  }

  read(page: PageNumber): Uint8Array {
    return this.readRun(page, 1);
  }

  readRun(first: PageNumber, count: number): Uint8Array {
    const bytes = new Uint8Array(count * this.#target.pageSize);
    this.#readInto(first, bytes);
    return bytes;
  }

  /** The caller compares pages and knows no files, so this error must name the file. */
  #readAt(offset: number, into: Uint8Array): number {
    try {
      return readSync(this.#open(), into, 0, into.length, offset);
    } catch (error) {
      throw replicaError(this.path, error);
    }
  }

  #readInto(first: PageNumber, bytes: Uint8Array): void {
    const size = this.#target.pageSize;
    for (let filled = 0; filled < bytes.length;) {
      const offset = (first - 1) * size + filled;
      const read = this.#readAt(offset, bytes.subarray(filled));
      if (read === 0) {
        // Only the lock-byte page, which is never written, can lie beyond the end of the file; it reads as zeros.
        if (first + Math.floor(filled / size) === lockBytePage(size)) {
          bytes.fill(0, filled);
          break;
        }
        throw new Error(`${this.path} is truncated`);
      }
      filled += read;
    }
  }

  /**
   * Gives the file its final length, owner and permission bits, and makes it durable. The bits are those of the origin
   * less the umask, but its owner may always read and write it, as later runs must.
   *
   * @param path - of the database that the file becomes.
   * @param isReplica - true if later runs keep it up to date.
   */
  async finish(path: string, isReplica: boolean): Promise<void> {
    await this.written();
    const descriptor = this.#open();
    ftruncateSync(descriptor, this.#target.pageCount * this.#target.pageSize);
    giveToOwner(descriptor, path, this.#target.fileOwner, isReplica);
    fchmodSync(descriptor, (this.#target.fileMode & 0o666 & ~process.umask()) | 0o600);
    fsyncSync(descriptor);
  }

  /** Closes the file and leaves it for the next run. */
  async close(): Promise<void> {
    if (this.#closed || this.#descriptor === undefined) return;
    this.#closed = true;
    try {
      // Waits for the writes: closing a descriptor under a write could send the write to another file.
      await this.written();
    } finally {
      const isEmpty = fstatSync(this.#descriptor).size === 0;
      closeSync(this.#descriptor);
      if (isEmpty) rmSync(this.path, { force: true });
    }
  }

  async remove(): Promise<void> {
    await this.close();
    rmSync(this.path, { force: true });
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
      readInto: (first, into) => this.#readInto(first, into),
      close: () => {},
    };
  }
}

/** The user's id, or `otherwise` on systems without users. */
function ownUid(otherwise: number): number {
  return process.geteuid?.() ?? otherwise;
}
