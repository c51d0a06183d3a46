import { SqlsyncError } from '../errors.ts';
import { emptyByBackup } from '../sqlite/backup-copy.ts';
import { ExistingReplica } from './existing-replica.ts';
import { markReplica } from './mark.ts';
import type { ReplicaOptions } from './old-state.ts';
import type { DatabaseFile } from './database-file.ts';
import type { PageSink, PageSource, SinkTarget } from './page-source.ts';
import { replicaError } from './replica-error.ts';

/**
 * An existing replica of an origin without any page. Zero pages cannot be written page by page, so it becomes an
 * empty database of one page, by SQLite's backup API in one transaction.
 */
export class EmptyReplica implements PageSink {
  readonly old: PageSource | undefined = undefined;
  readonly resumed = false;
  readonly holdsChanges = false;
  readonly warnings: string[] = [];
  /** True where the replica is empty already, so that nothing has to be done. */
  readonly unchanged: boolean;
  readonly #file: DatabaseFile;
  readonly #options: ReplicaOptions;

  static async open(file: DatabaseFile, target: SinkTarget, options: ReplicaOptions): Promise<EmptyReplica> {
    if (file.stats.size === 0) return new EmptyReplica(file, options, true);
    const replica = await ExistingReplica.open(file, target, options);
    const { isEmpty } = replica;
    await replica.abort();
    return new EmptyReplica(file, options, isEmpty);
  }

  private constructor(file: DatabaseFile, options: ReplicaOptions, unchanged: boolean) {
    this.#file = file;
    this.#options = options;
    this.unchanged = unchanged;
  }

  prepare(): Promise<void> {
    return Promise.resolve();
  }

  begin(): Promise<'ready'> {
    return Promise.resolve('ready');
  }

  write(): void {
    throw new SqlsyncError('PROTOCOL', 'A page came for a database without pages');
  }

  readNew(): Uint8Array {
    throw new SqlsyncError('PROTOCOL', 'A page was asked of a database without pages');
  }

  async commit(): Promise<void> {
    const size = this.#file.header?.pageSize;
    if (this.unchanged || size === undefined) return;
    const { mark } = this.#options;
    const unmark = markReplica(this.#file.path, mark, { warnings: this.warnings });
    try {
      await emptyByBackup(this.#file.path, size, this.#options.busyTimeoutMs);
    } catch (error) {
      unmark();
      throw replicaError(this.#file.path, error);
    }
  }

  ready(): Promise<void> {
    return Promise.resolve();
  }

  written(): Promise<void> {
    return Promise.resolve();
  }

  abort(): Promise<void> {
    return Promise.resolve();
  }
}
