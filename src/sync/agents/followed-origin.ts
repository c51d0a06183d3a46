import type { MessageOf } from '../../../protocol/messages.ts';
import { CommitListener } from '../../pool/admission/commit-listener.ts';
import { KeptOrigin } from '../../origin/kept-origin.ts';
import type { DatabaseSnapshot } from '../../origin/snapshot.ts';
import type { ReadOptions } from '../../pages/read-transaction.ts';
import type { Connection } from '../link/connection.ts';
import { KeptTree } from '../quick/kept-tree.ts';
import type { HashChoice, OriginMemory } from '../quick/kept-tree.ts';
import { Pace } from '../quick/pace.ts';
import { SentVersions } from '../quick/sent-versions.ts';

/** A peer may ask for looks more often; this host does not make them. */
const LEAST_LOOK_MS = 10;

/** The least time between two steps where the pools tell of commits, unless looks are due more often; milliseconds. */
const TOLD_STEP_MS = 1000;

/**
 * What an origin agent keeps of an origin while a replica follows it: the hashes of the last snapshot, and in WAL mode
 * what its frames tell. On the far side it lives as long as the connection. On the near side it outlives it, so that a
 * comparison of all pages still finds what nothing had told of.
 */
export class FollowedOrigin {
  readonly #origin = new KeptOrigin();
  readonly #tree = new KeptTree();
  readonly #pace = new Pace();
  #sent: { readonly key: Uint8Array; readonly pageSize: number; readonly versions: SentVersions } | undefined;
  #steppedAt = -Infinity;
  /** Hears of commits that the pools of an application make. */
  #listener: CommitListener | undefined;
  /** True if it has heard of one since the last snapshot began. */
  #isTold = false;
  /** True if it has heard of one since the last look. */
  #isNews = false;
  #onNews: () => void = () => {};

  /** The newest state. Throws as `DatabaseSnapshot.open`. */
  open(path: string, options: ReadOptions): Promise<DatabaseSnapshot> {
    this.#steppedAt = performance.now();
    this.#pace.start();
    if (this.#listener?.databasePath !== path) this.#listenAt(path);
    this.#isTold = false;
    return this.#origin.open(path, options);
  }

  /** How long until the next step may begin, in milliseconds; 0 or less if it may begin now. */
  get untilDueMs(): number {
    return this.#pace.notBefore - performance.now();
  }

  /** Call it when a step has failed, and the next one comes on another connection. */
  giveUp(): void {
    this.#pace.giveUp();
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

  /** The versions of pages of this size (bytes) that were sent while the hashes had this key. */
  sentUnder(key: Uint8Array, pageSize: number): SentVersions {
    const isSame = this.#sent?.pageSize === pageSize && Buffer.compare(this.#sent.key, key) === 0;
    if (!isSame || this.#sent === undefined) this.#sent = { key, pageSize, versions: new SentVersions() };
    return this.#sent.versions;
  }

  /**
   * Resolves when the origin has changed since the last snapshot, at most every `lookEveryMs`, or when the peer asks
   * for the next one. Where pools tell of commits, earlier looks find them. At once if it needs a snapshot to compare: the first one, or one under a new key. Throws what
   * `Connection.poll` throws.
   */
  async awaitChange(connection: Connection, { key, lookEveryMs }: MessageOf<'open'>): Promise<void> {
    const everyMs = Math.max(LEAST_LOOK_MS, lookEveryMs);
    this.#origin.lookEveryMs = everyMs;
    if (!this.#tree.has(key)) return;
    connection.state = 'waiting';
    this.#onNews = connection.stir;
    await connection.untimed(() => this.#untilChanged(connection, everyMs));
  }

  /** Closes the connection to the database. No snapshot may be open. */
  close(): Promise<void> {
    this.#listener?.close();
    this.#listener = undefined;
    return this.#origin.close();
  }

  #listenAt(path: string): void {
    this.#listener?.close();
    this.#listener = new CommitListener(path, () => {
      this.#isTold = true;
      this.#isNews = true;
      this.#onNews();
    });
  }

  /** Resolves when the origin has changed and a step is due, or when the peer asks for the next snapshot. */
  async #untilChanged(connection: Connection, everyMs: number): Promise<void> {
    for (;;) {
      this.#isNews = false;
      const hasChanged = this.#origin.hasChanged();
      if (!hasChanged) this.#isTold = false;
      const stepMs = this.#isTold ? Math.min(everyMs, TOLD_STEP_MS) : everyMs;
      const left = Math.max(this.#steppedAt + stepMs, this.#pace.notBefore) - performance.now();
      if (hasChanged && left <= 0) return;
      // Until it is due, nothing depends on a look: the kept origin makes its own.
      const waitMs = Math.max(1, left > 0 ? left : this.#origin.untilLookMs);
      const next = await connection.receiveWithin(waitMs, () => this.#isNews);
      if (next?.type === 'wake') return;
    }
  }
}
