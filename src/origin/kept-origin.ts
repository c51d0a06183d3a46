import { closeSync, fdatasync, openSync, realpathSync, statSync } from 'node:fs';
import { promisify } from 'node:util';
import { readFully } from '../files/read-fully.ts';
import { currentFileId } from '../pages/database-file.ts';
import { fileFacts } from '../pages/database-stamp.ts';
import { HEADER_BYTES } from '../pages/header.ts';
import type { ReadOptions } from '../pages/read-transaction.ts';
import { saltsOf, WalIndex } from '../pages/wal-index.ts';
import { DatabaseSnapshot } from './snapshot.ts';
import { WalCollector } from './wal-collector.ts';
import type { CollectedPages } from './wal-collector.ts';

/**
 * How long the connection stays open while nothing changes, in milliseconds. An idle connection keeps the application
 * from leaving WAL mode, and its last close from removing the -wal.
 */
const IDLE_MS = 5000;

/** A checkpoint writes to the file before it says so; any other write leaves the file changed for longer than this. */
const CHECKPOINT_MS = 2000;

/** A file whose last change is older gets another time with its next change, on every file system. */
const SETTLED_MS = 3000;

/** An open connection to an origin in WAL mode, and what it has seen. */
interface Attachment {
  readonly path: string;
  /** Gives the connection; its own transaction has ended. */
  readonly snapshot: DatabaseSnapshot;
  readonly index: WalIndex;
  readonly collector: WalCollector;
}

/** What the file looked like, to notice writes that are no checkpoint. */
interface SeenFile {
  readonly facts: string;
  readonly backfilled: number;
  readonly salts: Buffer | undefined;
}

/** What was known when the connection was closed. */
interface Rest {
  readonly path: string;
  readonly facts: string;
  readonly base: Buffer;
}

/**
 * An origin of which one snapshot follows another. Between two of them no transaction is open. In WAL mode the
 * connection stays open while the database changes, so that the frames tell which pages changed:
 *
 *     open ──► snapshot, closed ──► hasChanged … ──► open ──► …
 *                                   nothing for a while: detach, from then on only stat() looks
 */
export class KeptOrigin {
  /** The pages that changed between the last two snapshots; undefined if that is not known. */
  changes: CollectedPages | undefined;
  #attachment: Attachment | undefined;
  #rest: Rest | undefined;
  /** The outside of the database before the last snapshot; undefined while a connection looks at the inside. */
  #outside: { readonly path: string; readonly facts: string } | undefined;
  #seen: SeenFile | undefined;
  #suspectSince: number | undefined;
  #changedAt = 0;
  readonly #idleMs: number;

  /** @param idleMs How long the connection stays open while nothing changes, in milliseconds. */
  constructor(idleMs: number = IDLE_MS) {
    this.#idleMs = idleMs;
  }

  /** The newest state. Throws as `DatabaseSnapshot.open`. */
  async open(path: string, options: ReadOptions): Promise<DatabaseSnapshot> {
    this.#changedAt = performance.now();
    if (this.#attachment !== undefined && !this.#isUsable(this.#attachment, path)) this.close();
    if (this.#attachment === undefined) return this.#openAnew(path, options);
    return this.#next(this.#attachment);
  }

  /** True if the newest state may differ from that of the last snapshot. Takes no lock. */
  hasChanged(): boolean {
    try {
      return this.#attachment === undefined ? this.#differsOutside() : this.#differsInside(this.#attachment);
    } catch {
      return true; // the next snapshot says what is wrong
    }
  }

  /** True while changes come so fast that the WAL may begin anew between two looks a second apart. */
  get isBusy(): boolean {
    return this.#attachment?.collector.hasChanges === true || this.#suspectSince !== undefined;
  }

  /** How long until `detachIfIdle` closes the connection, if nothing changes, in milliseconds; Infinity if none is open. */
  get idleLeftMs(): number {
    if (this.#attachment === undefined) return Infinity;
    return Math.max(0, this.#changedAt + this.#idleMs - performance.now());
  }

  /** Closes the connection if nothing has changed for a while; the next frames are known nevertheless. */
  async detachIfIdle(): Promise<void> {
    const attachment = this.#attachment;
    if (attachment === undefined || performance.now() - this.#changedAt < this.#idleMs) return;
    const { collector, path } = attachment;
    const before = tryOutside(path, timesOf);
    // A commit after this look moves the times.
    if (this.#differsInside(attachment)) return;
    const { base } = collector;
    this.close();
    if (base === undefined) return;
    try {
      const facts = outsideOf(path);
      if (timesOf(path) !== before) return;
      this.#outside = { path, facts };
      await settle(path);
      const isSettled = Date.now() - statSync(path).ctimeMs > SETTLED_MS;
      if (isSettled) this.#rest = { path, facts: fileFacts(path).text, base };
    } catch {
      this.#outside = undefined; // the next snapshot says what is wrong
    }
  }

  /** Closes the connection. No snapshot may be open. */
  close(): void {
    const attachment = this.#attachment;
    this.#attachment = undefined;
    this.#outside = undefined;
    this.#rest = undefined;
    attachment?.snapshot.detach(() => attachment.index.close());
  }

  async #openAnew(path: string, options: ReadOptions): Promise<DatabaseSnapshot> {
    const rest = this.#rest;
    this.#rest = undefined;
    this.changes = undefined;
    this.#outside = { path, facts: tryOutside(path) };
    const snapshot = await DatabaseSnapshot.open(path, options);
    const index = snapshot.wal && options.reader !== 'dbpage' ? WalIndex.open(snapshot.path) : undefined;
    if (index === undefined) return snapshot;
    snapshot.keepOpen();
    snapshot.close();
    const collector = new WalCollector(snapshot.path, index, snapshot.pageSize);
    this.#attachment = { path, snapshot, index, collector };
    this.#seen = undefined;
    this.#suspectSince = undefined;
    const header = index.header();
    const isSame = rest?.path === path && rest.facts === fileFacts(path).text;
    if (isSame && header !== undefined && saltsOf(header).equals(saltsOf(rest.base)))
      collector.resume(rest.base);
    return this.#next(this.#attachment);
  }

  /**
   * A snapshot that begins between two looks has all up to the first and may have more, up to the second. So what the
   * second finds counts for this snapshot and for the next one.
   */
  async #next({ path, snapshot, collector }: Attachment): Promise<DatabaseSnapshot> {
    collector.look();
    const before = collector.take();
    let next: DatabaseSnapshot;
    try {
      next = await snapshot.again();
    } catch (error) {
      this.close();
      throw error;
    }
    collector.look();
    const during = collector.take();
    collector.keep(during);
    this.changes = before && during && union(before, during);
    this.#outside = undefined;
    this.#seen ??= this.#see(path);
    return next;
  }

  #isUsable({ path, snapshot, index }: Attachment, wanted: string): boolean {
    const isSame = path === wanted && currentFileId(path) === snapshot.file.fileId;
    return isSame && index.header() !== undefined;
  }

  #differsOutside(): boolean {
    const outside = this.#outside;
    return outside === undefined || outsideOf(outside.path) !== outside.facts;
  }

  #differsInside(attachment: Attachment): boolean {
    const { collector, path } = attachment;
    if (!this.#isUsable(attachment, path)) return true;
    collector.look();
    this.#watchFile(attachment);
    if (!collector.hasChanges) return false;
    this.#changedAt = performance.now();
    return true;
  }

  /** Notices that another program than SQLite wrote into the file: no frame tells of that. */
  #watchFile({ path, collector }: Attachment): void {
    const now = this.#see(path);
    const seen = this.#seen;
    const isCheckpoint =
      seen === undefined ||
      now.backfilled !== seen.backfilled ||
      seen.salts === undefined ||
      now.salts?.equals(seen.salts) !== true;
    if (seen !== undefined && now.facts !== seen.facts && !isCheckpoint) {
      this.#suspectSince ??= performance.now();
      if (performance.now() - this.#suspectSince < CHECKPOINT_MS) return;
      collector.doubt();
    }
    this.#suspectSince = undefined;
    this.#seen = now;
  }

  #see(path: string): SeenFile {
    const { index, collector } = this.#attachment as Attachment;
    const salts = collector.base === undefined ? undefined : saltsOf(collector.base);
    return { facts: fileFacts(path).text, backfilled: index.backfilled(), salts };
  }
}

function union(a: CollectedPages, b: CollectedPages): CollectedPages {
  return { pages: new Set([...a.pages, ...b.pages]), leastPages: Math.min(a.leastPages, b.leastPages) };
}

/** What a commit changes of the files' times and sizes. Opens nothing, so that a connection of this process may be open. */
function timesOf(path: string): string {
  const wal = statSync(`${realpathSync(path)}-wal`, { bigint: true, throwIfNoEntry: false });
  const ofWal = wal === undefined ? [] : [wal.ino, wal.size, wal.mtimeNs];
  return [fileFacts(path).text, ...ofWal].join(' ');
}

/** All of the outside that a commit changes. Not while this process has the database open: see `inspectDatabase`. */
function outsideOf(name: string): string {
  const path = realpathSync(name);
  const header = Buffer.alloc(HEADER_BYTES);
  const descriptor = openSync(path, 'r');
  try {
    readFully(descriptor, header, 0);
  } finally {
    closeSync(descriptor);
  }
  return [path, timesOf(path), header.toString('hex')].join(' ');
}

/** '' for a file that cannot be read; the snapshot says why. */
function tryOutside(path: string, look: (path: string) => string = outsideOf): string {
  try {
    return look(path);
  } catch {
    return '';
  }
}

/** A program that writes through a memory map moves the times only where it finds a page that is on the disk. */
async function settle(path: string): Promise<void> {
  const descriptor = openSync(path, 'r');
  try {
    await promisify(fdatasync)(descriptor);
  } finally {
    closeSync(descriptor);
  }
}
