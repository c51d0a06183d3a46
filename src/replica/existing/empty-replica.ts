import { SqlsyncError } from '../../errors.ts';
import { emptyByBackup } from '../../sqlite/backup-copy.ts';
import { waitExclusiveLock } from '../../sqlite/locks/exclusive-lock.ts';
import { ExistingReplica } from './existing-replica.ts';
import type { ExistingOptions } from './old-state.ts';
import { besideReplica, markReplica } from '../../beside/mark.ts';
import { contentStamp, currentFileId } from '../../pages/database-file.ts';
import type { DatabaseFile } from '../../pages/database-file.ts';
import type { PageSink, PageSource, SinkTarget } from '../../pages/page-source.ts';
import { ReplicaMovedError, replicaError, replicaReplaced } from '../replica-error.ts';

/**
 * An existing replica of an origin that has no pages. SQLite cannot write zero pages page by page, so the backup API
 * makes it an empty database of one page, in one transaction.
 */
export class EmptyReplica implements PageSink {
  readonly old: PageSource | undefined = undefined;
  readonly warnings: string[] = [];
  /** True if the replica is already empty, so that there is nothing to do. */
  readonly unchanged: boolean;
  readonly #file: DatabaseFile;
  readonly #options: ExistingOptions;
  /** The replica's stamp from before the check for emptiness. */
  readonly #stamp: string;

  static async open(file: DatabaseFile, target: SinkTarget, options: ExistingOptions): Promise<EmptyReplica> {
    const stamp = contentStamp(file.path);
    if (file.stats.size === 0) return new EmptyReplica(file, options, { unchanged: true, stamp });
    const replica = await ExistingReplica.open(file, target, options);
    const { isEmpty } = replica;
    await replica.abort();
    return new EmptyReplica(file, options, { unchanged: isEmpty, stamp });
  }

  private constructor(
    file: DatabaseFile,
    options: ExistingOptions,
    { unchanged, stamp }: { readonly unchanged: boolean; readonly stamp: string },
  ) {
    this.#stamp = stamp;
    this.#file = file;
    this.#options = options;
    this.unchanged = unchanged;
  }

  write(): void {
    throw new SqlsyncError('PROTOCOL', 'A page came for a database without pages');
  }

  readNew(): Uint8Array {
    throw new SqlsyncError('PROTOCOL', 'A page of a database without pages was requested');
  }

  async commit(): Promise<void> {
    const size = this.#file.header?.pageSize;
    if (this.unchanged || size === undefined) return;
    const { path } = this.#file;
    const { busyTimeoutMs: timeoutMs, mark, signal } = this.#options;
    let unmark = (): void => {};
    const onLocked = (): void => {
      // Another sync may have committed a newer snapshot than the empty one.
      if (contentStamp(path) !== this.#stamp) throw new ReplicaMovedError(path);
      if (currentFileId(path) !== this.#file.fileId) throw replicaReplaced(path);
      unmark = markReplica(path, mark, { warnings: this.warnings });
    };
    try {
      const lockPath = besideReplica(path, '-lock');
      const lock = await waitExclusiveLock(lockPath, `Replica ${path}`, { timeoutMs, signal });
      try {
        await emptyByBackup(path, size, { timeoutMs, onLocked });
      } finally {
        lock.release();
      }
    } catch (error) {
      unmark();
      throw replicaError(path, error);
    }
  }

  abort(): Promise<void> {
    return Promise.resolve();
  }
}
