import type { MessageOf } from '../../../protocol/messages.ts';
import { KeptOrigin } from '../../origin/kept-origin.ts';
import type { DatabaseSnapshot } from '../../origin/snapshot.ts';
import type { ReadOptions } from '../../pages/read-transaction.ts';
import type { Connection } from '../link/connection.ts';
import { KeptTree } from '../quick/kept-tree.ts';
import type { HashChoice, OriginMemory } from '../quick/kept-tree.ts';
import { Pace } from '../quick/pace.ts';

/** How often to look while the origin changes, in milliseconds: a busy WAL begins anew several times a second. */
const BUSY_LOOK_MS = 50;

/** A peer may ask for looks more often; this host does not make them. */
const LEAST_LOOK_MS = 10;

/**
 * What an origin agent keeps of an origin while a replica follows it, for as long as one connection: the hashes of the
 * last snapshot, and in WAL mode what its frames tell.
 */
export class FollowedOrigin {
  readonly #origin = new KeptOrigin();
  readonly #tree = new KeptTree();
  readonly #pace = new Pace();
  #steppedAt = -Infinity;

  /** The newest state. Throws as `DatabaseSnapshot.open`. */
  open(path: string, options: ReadOptions): Promise<DatabaseSnapshot> {
    this.#steppedAt = performance.now();
    this.#pace.start();
    return this.#origin.open(path, options);
  }

  /** What is known of the snapshot that was opened last. */
  memoryOf(snapshot: DatabaseSnapshot, choice: HashChoice): OriginMemory {
    const { path, pageSize, pageCount } = snapshot;
    const { changes } = this.#origin;
    const memory = this.#tree.memoryOf({ path, pageSize, pageCount, changes }, choice);
    return {
      ...memory,
      remember: (nodes) => {
        memory.remember(nodes);
        this.#pace.end(memory.known === undefined);
      },
    };
  }

  /**
   * Resolves when the origin has changed since the last snapshot, at most every `lookEveryMs`, or when the peer asks
   * for the next one. At once if it needs a snapshot to compare: the first one, or one under a new key. Throws what
   * `Connection.poll` throws.
   */
  async awaitChange(connection: Connection, { key, lookEveryMs }: MessageOf<'open'>): Promise<void> {
    if (!this.#tree.has(key)) return;
    connection.state = 'waiting';
    const everyMs = Math.max(LEAST_LOOK_MS, lookEveryMs);
    const dueAt = Math.max(this.#steppedAt + everyMs, this.#pace.notBefore);
    for (;;) {
      const hasChanged = this.#origin.hasChanged();
      const left = dueAt - performance.now();
      if (hasChanged && left <= 0) return;
      if (!hasChanged) await this.#origin.detachIfIdle();
      const isBusy = hasChanged || this.#origin.isBusy;
      const untilLook = isBusy ? BUSY_LOOK_MS : Math.min(everyMs, this.#origin.idleLeftMs);
      const pause = Math.min(untilLook, left > 0 ? left : everyMs);
      const next = await connection.receiveWithin(Math.max(1, pause));
      if (next?.type === 'wake') return;
    }
  }

  /** Closes the connection to the database. No snapshot may be open. */
  close(): void {
    this.#origin.close();
  }
}
