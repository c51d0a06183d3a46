import { closeSync, fchmodSync, fstatSync, openSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { besideReplica } from '../../beside/mark.ts';
import type { DatabaseFile } from '../../pages/database-file.ts';
import { fileFacts } from '../../pages/database-stamp.ts';
import type { SinkTarget } from '../../pages/page-source.ts';
import { ReadTransaction } from '../../pages/read-transaction.ts';
import { frameChecksum, frameCount, saltsOf } from '../../pages/wal-index.ts';
import type { PageWriter } from '../../sqlite/writer/page-writer.ts';
import { replicaToRead } from './old-state.ts';
import type { ExistingOptions, OldState } from './old-state.ts';

/**
 * The longest wait for the clock of the file system to go on, in milliseconds. It is in vain where the clock counts
 * seconds.
 */
const MAX_TICK_MS = 50;

/** A replica after a commit and its checkpoint, while our connection is still open. */
interface Committed {
  /** See `fileFacts`. */
  readonly file: string;
  /** Of the wal-index. */
  readonly header: Buffer;
  readonly isBackfilled: boolean;
}

/**
 * Finds the stamp of what a run commits into a replica in WAL mode. It has to prove that no other program wrote the
 * replica between the commit and the stamp, which is taken after the last connection is closed, since that moves the
 * times.
 *
 *     start ──► write lock ──► before ──► COMMIT ──► checkpoint ──► after ──► all closed ──► stamp
 *                    data version ────── no other commit ────────── data version
 *                                                                   file, WAL ── unchanged ── file, WAL
 */
export class CommitWatch {
  readonly #file: DatabaseFile;
  readonly #replica: OldState;
  readonly #target: SinkTarget;
  readonly #options: ExistingOptions;
  #isStarted = false;
  #version: number | undefined;
  #committed: Committed | undefined;

  constructor(file: DatabaseFile, replica: OldState, target: SinkTarget, options: ExistingOptions) {
    this.#file = file;
    this.#replica = replica;
    this.#target = target;
    this.#options = options;
  }

  /** Call it before the commit. The watch takes some milliseconds of it. */
  start(): void {
    this.#isStarted = true;
  }

  /** Call it in the transaction that is about to commit. A write past SQLite while the run compared ends the watch. */
  async before(writer: PageWriter): Promise<void> {
    const isWatched =
      this.#isStarted &&
      this.#file.header?.wal === true &&
      this.#options.mark !== undefined &&
      this.#replica.isUntouched;
    this.#version = isWatched ? await writer.call('dataVersion') : undefined;
  }

  /** Call it after the checkpoint, before the files are closed. Throws the errors of the system and of SQLite. */
  async after(writer: PageWriter): Promise<void> {
    if (this.#version === undefined) return;
    const committed = await this.#note();
    if ((await writer.call('dataVersion')) === this.#version) this.#committed = committed;
  }

  /**
   * The stamp of the replica, when this run has closed it: another state with the same stamp has the same content.
   * Undefined if nothing can prove that, or that the replica is what was committed. Never throws.
   */
  async stamp(): Promise<Uint8Array | undefined> {
    if (this.#committed === undefined) return undefined;
    try {
      return await this.#stamp(this.#committed);
    } catch {
      return undefined;
    }
  }

  /** Undefined if a later write to the file might not be seen by its ctime. */
  async #note(): Promise<Committed | undefined> {
    const index = this.#replica.walIndex;
    const header = index?.header();
    if (index === undefined || header === undefined) return undefined;
    const isBackfilled = index.isBackfilled(header);
    const { text: file, ctimeNs } = fileFacts(this.#file.path);
    return (await hasTicked(this.#file.path, ctimeNs)) ? { file, header, isBackfilled } : undefined;
  }

  async #stamp(committed: Committed): Promise<Uint8Array | undefined> {
    const { path } = this.#file;
    // The run is done: it waits for nobody.
    const options = { ...this.#options, busyTimeoutMs: 0, stampMinAgeMs: 0 };
    const transaction = await ReadTransaction.open(replicaToRead(path), options);
    try {
      const { stamp, walHeader, pageCount } = transaction;
      const isSame =
        walHeader !== undefined &&
        isSameWal(walHeader, committed) &&
        pageCount === this.#target.pageCount &&
        fileFacts(path).text === committed.file;
      return isSame ? stamp : undefined;
    } finally {
      transaction.close();
      transaction.closeFile();
    }
  }
}

/** Without frames the file has everything, if it had everything before. */
function isSameWal(now: Buffer, { header, isBackfilled }: Committed): boolean {
  if (frameCount(now) === 0) return isBackfilled;
  return (
    frameCount(now) === frameCount(header) &&
    saltsOf(now).equals(saltsOf(header)) &&
    frameChecksum(now).equals(frameChecksum(header))
  );
}

/** True once a change of a file there gets a later ctime than this: each change of the mark's mode moves its ctime. */
async function hasTicked(path: string, ctimeNs: bigint): Promise<boolean> {
  const mark = openSync(besideReplica(path, ''), 'r');
  try {
    // Looks once more after the last pause, however long a busy machine made it.
    for (const end = performance.now() + MAX_TICK_MS; ; await delay(1)) {
      const isLast = performance.now() >= end;
      fchmodSync(mark, fstatSync(mark).mode & 0o7777);
      if (fstatSync(mark, { bigint: true }).ctimeNs > ctimeNs) return true;
      if (isLast) return false;
    }
  } finally {
    closeSync(mark);
  }
}
