import { closeSync, fdatasync, openSync, realpathSync, statSync } from 'node:fs';
import { promisify } from 'node:util';
import { readFully } from '../files/read-fully.ts';
import { currentFileId } from '../pages/database-file.ts';
import { fileFacts } from '../pages/database-stamp.ts';
import { HEADER_BYTES } from '../pages/header.ts';
import type { ReadOptions } from '../pages/read-transaction.ts';
import { saltsOf, WalIndex } from '../pages/wal-index.ts';
import { originError } from './origin-error.ts';
import { DatabaseSnapshot } from './snapshot.ts';
import { WalCollector } from './wal-collector.ts';
import type { CollectedPages } from './wal-collector.ts';

/**
 * How long the connection stays open while nothing changes, in milliseconds. An idle connection keeps the application
 * from leaving WAL mode, and its last close from removing the -wal.
 */
const IDLE_MS = 5000;

/** How often to look while the origin changes, in milliseconds: a busy WAL begins anew several times a second. */
const BUSY_LOOK_MS = 50;

/** An origin counts as busy for so long after a change, in milliseconds. */
const BUSY_MS = 2000;

/** A checkpoint writes to the file before it says so; any other write leaves the file changed for longer than this. */
const CHECKPOINT_MS = 2000;

/** A checkpoint of a long WAL writes for longer before it says so; one that was killed must not hide a write for ever. */
const LONG_CHECKPOINT_MS = 60_000;

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
  readonly fileId: string;
  readonly facts: string;
  readonly base: Buffer;
  readonly backfilled: number;
}

/**
 * An origin of which one snapshot follows another. Between two of them no transaction is open. In WAL mode the
 * connection stays open while the database changes, so that the frames tell which pages changed:
 *
 *     open ──► snapshot, closed ──► hasChanged … ──► open ──► …
 *                                   nothing for a while: detached, from then on only stat() looks
 *
 * While the connection is open, a timer looks at the frames, whatever its owner waits for: a busy WAL would begin anew
 * unseen. It closes the connection of an origin that is idle.
 */
export class KeptOrigin {
  /** The pages that changed between the last two snapshots; undefined if that is not known. */
  changes: CollectedPages | undefined;
  /** How often to look while nothing changes, in milliseconds. */
  lookEveryMs = 1000;
  #attachment: Attachment | undefined;
  #rest: Rest | undefined;
  /** The outside of the database before the last snapshot; undefined while a connection looks at the inside. */
  #outside: { readonly path: string; readonly facts: string } | undefined;
  #seen: SeenFile | undefined;
  #suspectSince: number | undefined;
  #changedAt = 0;
  #timer: NodeJS.Timeout | undefined;
  #isOpening = false;
  /** The snapshot that was opened last on the connection. */
  #latest: DatabaseSnapshot | undefined;
  /** The header up to which the last snapshot is certain to have all. */
  #lastBase: Buffer | undefined;
  #detaching: Promise<void> | undefined;
  readonly #idleMs: number;

  /** @param idleMs How long the connection stays open while nothing changes, in milliseconds. */
  constructor(idleMs: number = IDLE_MS) {
    this.#idleMs = idleMs;
  }

  /** The newest state. Throws as `DatabaseSnapshot.open`. */
  async open(path: string, options: ReadOptions): Promise<DatabaseSnapshot> {
    // A descriptor that is closed now would drop the locks of a connection that is opened meanwhile.
    await this.#detaching;
    this.#changedAt = performance.now();
    this.#isOpening = true;
    try {
      if (this.#attachment !== undefined && !this.#isUsable(this.#attachment, path)) this.#drop();
      const opened =
        this.#attachment === undefined
          ? await this.#openAnew(path, options)
          : await this.#next(this.#attachment);
      this.#latest = opened;
      this.#arm();
      return opened;
    } finally {
      this.#isOpening = false;
    }
  }

  /** True if the newest state may differ from that of the last snapshot. Takes no lock. */
  hasChanged(): boolean {
    try {
      return this.#attachment === undefined ? this.#differsOutside() : this.#differsInside(this.#attachment);
    } catch {
      return true; // the next snapshot says what is wrong
    }
  }

  /** The pause until the next look, in milliseconds; short while the WAL may begin anew between two looks. */
  get untilLookMs(): number {
    if (this.#attachment === undefined) return this.lookEveryMs;
    const quietMs = performance.now() - this.#changedAt;
    if (quietMs < BUSY_MS || this.#suspectSince !== undefined)
      return Math.min(BUSY_LOOK_MS, this.lookEveryMs);
    const idleLeftMs = Math.max(BUSY_LOOK_MS, this.#idleMs - quietMs);
    return Math.min(this.lookEveryMs, idleLeftMs);
  }

  /** Closes the connection if nothing has changed for a while; the next frames are known nevertheless. */
  async detachIfIdle(): Promise<void> {
    await this.#detaching;
    const attachment = this.#attachment;
    if (attachment === undefined || this.#isInUse || !this.#isIdle(attachment)) return;
    this.#detaching = this.#detach(attachment).catch(() => {
      this.#outside = undefined; // the next snapshot says what is wrong
    });
    await this.#detaching;
    this.#detaching = undefined;
  }

  /** Closes the connection. No snapshot may be open. */
  async close(): Promise<void> {
    await this.#detaching;
    this.#drop();
  }

  get #isInUse(): boolean {
    return this.#isOpening || this.#latest?.isOpen === true;
  }

  /** A file that was written a moment ago cannot be recognized later, so it gets twice the time. */
  #isIdle({ path }: Attachment): boolean {
    const quietMs = performance.now() - this.#changedAt;
    if (quietMs < this.#idleMs) return false;
    return quietMs >= 2 * this.#idleMs || isSettled(path);
  }

  async #detach(attachment: Attachment): Promise<void> {
    const { collector, index, path } = attachment;
    const before = tryOutside(path, timesOf);
    const changedAt = this.#changedAt;
    // A commit after this look moves the times.
    const hasChanges = this.#differsInside(attachment);
    if (this.#changedAt !== changedAt) return;
    const isSound = this.#isUsable(attachment, path) && this.#suspectSince === undefined;
    const base = isSound && collector.isKnown ? this.#lastBase : undefined;
    const backfilled = index.backfilled();
    this.#drop();
    if (base === undefined) return;
    const facts = outsideOf(path);
    if (timesOf(path) !== before) return;
    if (!hasChanges) this.#outside = { path, facts };
    await settle(path);
    if (!isSettled(path)) return;
    const fileId = currentFileId(path) ?? '';
    this.#rest = { path, fileId, facts: fileFacts(path).text, base, backfilled };
  }

  #drop(): void {
    const attachment = this.#attachment;
    clearTimeout(this.#timer);
    this.#attachment = undefined;
    this.#latest = undefined;
    this.#outside = undefined;
    this.#rest = undefined;
    attachment?.snapshot.detach(() => attachment.index.close());
  }

  #arm(): void {
    clearTimeout(this.#timer);
    if (this.#attachment === undefined) return;
    this.#timer = setTimeout(() => void this.#tick(), this.untilLookMs).unref();
  }

  /** Never rejects. */
  async #tick(): Promise<void> {
    this.hasChanged();
    await this.detachIfIdle().catch(() => {}); // the next snapshot says what is wrong
    this.#arm();
  }

  async #openAnew(path: string, options: ReadOptions): Promise<DatabaseSnapshot> {
    const rest = this.#rest;
    this.#rest = undefined;
    this.changes = undefined;
    this.#outside = { path, facts: tryOutside(path) };
    const snapshot = await DatabaseSnapshot.open(path, options);
    const attachment = attach(path, snapshot, options);
    if (attachment === undefined) return snapshot;
    this.#attachment = attachment;
    this.#seen = undefined;
    this.#suspectSince = undefined;
    if (rest !== undefined && continues(attachment, rest)) attachment.collector.resume(rest.base);
    return this.#next(attachment);
  }

  /**
   * A snapshot that begins between two looks has all up to the first and may have more, up to the second. So what the
   * second finds counts for this snapshot and for the next one.
   */
  async #next({ path, snapshot, collector }: Attachment): Promise<DatabaseSnapshot> {
    collector.look();
    const before = collector.take();
    this.#lastBase = collector.base;
    let next: DatabaseSnapshot;
    try {
      next = await snapshot.again();
    } catch (error) {
      this.#drop();
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
    try {
      const isSame = path === wanted && currentFileId(path) === snapshot.file.fileId;
      return isSame && index.header() !== undefined;
    } catch {
      return false; // a new connection says what is wrong
    }
  }

  #differsOutside(): boolean {
    const outside = this.#outside;
    return outside === undefined || outsideOf(outside.path) !== outside.facts;
  }

  #differsInside(attachment: Attachment): boolean {
    const { collector, path } = attachment;
    if (!this.#isUsable(attachment, path)) return true;
    const hasNew = collector.look();
    this.#watchFile(attachment);
    // What waits for the next snapshot makes no origin busy.
    if (hasNew) this.#changedAt = performance.now();
    return collector.hasChanges;
  }

  /** Notices that another program than SQLite wrote into the file: no frame tells of that. */
  #watchFile({ path, collector, index }: Attachment): void {
    const now = this.#see(path);
    const seen = this.#seen;
    const isCheckpoint =
      seen === undefined ||
      now.backfilled !== seen.backfilled ||
      seen.salts === undefined ||
      now.salts?.equals(seen.salts) !== true;
    if (seen !== undefined && now.facts !== seen.facts && !isCheckpoint) {
      this.#suspectSince ??= performance.now();
      const patienceMs = index.isCheckpointing() ? LONG_CHECKPOINT_MS : CHECKPOINT_MS;
      if (performance.now() - this.#suspectSince < patienceMs) return;
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

/** Keeps the connection of a snapshot, whose transaction ends; undefined, and the snapshot open, if it has no WAL. */
function attach(path: string, snapshot: DatabaseSnapshot, { reader }: ReadOptions): Attachment | undefined {
  let index: WalIndex | undefined;
  try {
    index = snapshot.wal && reader !== 'dbpage' ? WalIndex.open(snapshot.path) : undefined;
    if (index === undefined) return undefined;
    snapshot.keepOpen();
    snapshot.close();
    return { path, snapshot, index, collector: new WalCollector(snapshot.path, index, snapshot.pageSize) };
  } catch (error) {
    // Nobody else knows of the transaction, which would keep the WAL from being emptied.
    snapshot.detach(() => index?.close());
    throw originError(snapshot.path, error);
  }
}

/**
 * True if the frames after those of `rest` are all that has changed. A checkpoint explains another time of the file; a
 * WAL that began anew has other salts.
 */
function continues({ path, index }: Attachment, rest: Rest): boolean {
  try {
    const header = index.header();
    if (rest.path !== path || header === undefined) return false;
    const isExplained = fileFacts(path).text === rest.facts || index.backfilled() > rest.backfilled;
    return isExplained && currentFileId(path) === rest.fileId && saltsOf(header).equals(saltsOf(rest.base));
  } catch {
    return false;
  }
}

/** True if the next change of the file gives it another time. */
function isSettled(path: string): boolean {
  return Date.now() - statSync(path).ctimeMs > SETTLED_MS;
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
