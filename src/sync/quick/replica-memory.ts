import type { HashAudit } from '../../pages/hash-audit.ts';
import type { KnownNodes } from '../../pages/hash-tree.ts';
import type { PageSize } from '../../pages/page-types.ts';
import { isWorthATree, ReplicaTree } from './known-tree.ts';
import { QuickCheck } from './quick-check.ts';
import type { QuickOptions } from './quick-check.ts';

/** What earlier runs found of a replica and its origin. */
export class ReplicaMemory {
  readonly quick: QuickCheck;
  readonly #path: string;
  readonly #tree: ReplicaTree | undefined;
  readonly #onNote: QuickOptions['onNote'];
  #nodes: KnownNodes | undefined;
  #audit: HashAudit | undefined;

  /** @param bytes Of the replica's file. */
  constructor(options: QuickOptions, bytes: number) {
    this.#path = options.replicaPath;
    this.#onNote = options.onNote;
    this.quick = new QuickCheck(options);
    this.#tree = isWorthATree(bytes) ? new ReplicaTree(options) : undefined;
  }

  /** The key under which hashes are kept; undefined if none are. */
  get key(): Uint8Array | undefined {
    return this.#tree?.key;
  }

  /** What is known of the pages of a replica with this stamp. */
  recall(stamp: Uint8Array | undefined, size: PageSize): { nodes?: KnownNodes; audit?: HashAudit } {
    this.#nodes = this.#tree?.known(stamp, size);
    if (this.#nodes !== undefined)
      this.#onNote?.(`${this.#path} is as an earlier run left it; the hashes of its pages are known.`);
    this.#audit = this.#nodes === undefined ? this.#tree?.audit(stamp, size) : undefined;
    return {
      ...(this.#nodes === undefined ? {} : { nodes: this.#nodes }),
      ...(this.#audit === undefined ? {} : { audit: this.#audit }),
    };
  }

  /** What the comparison found wrong in what was known. */
  get warnings(): readonly string[] {
    const { size = 0 } = this.#audit?.wrong ?? {};
    if (size === 0) return [];
    const [first] = this.#audit?.wrong ?? [];
    return [
      `Pages of the replica ${this.#path} had changed although nothing had written them since the last run (${size} places, the first at page ${first}). They are right now. Check the disk; runs without --full did not see it`,
    ];
  }

  /** As `QuickCheck.remember`. */
  rememberPair(originStamp: Uint8Array, replicaStamp: Uint8Array | undefined): void {
    this.quick.remember(originStamp, replicaStamp, this.#tree?.comparedAt ?? Date.now());
  }

  /** Keeps the hashes of the replica, which has this stamp. */
  rememberTree(nodes: KnownNodes, size: PageSize, stamp: Uint8Array | undefined, isUnchanged: boolean): void {
    // A replica without a stamp just now is no reason to forget what is known of it.
    if (isUnchanged && (this.#nodes !== undefined || (stamp === undefined && this.#tree?.isKnown === true)))
      return;
    this.quick.attempt(() => this.#tree?.remember(nodes, size, stamp));
  }
}
