import { randomBytes } from 'node:crypto';
import { statSync } from 'node:fs';
import type { HashAlgorithm } from '../../../protocol/messages.ts';
import { outerStamp } from '../../pages/database-stamp.ts';
import { HashAudit } from '../../pages/hash-audit.ts';
import { createPageHasher, HASH_KEY_BYTES } from '../../pages/hash.ts';
import type { KnownNodes } from '../../pages/hash-tree.ts';
import type { PageSize } from '../../pages/page-types.ts';
import { Pace } from './pace.ts';
import { ReceivedPages } from './sent-versions.ts';

/** A file whose last change is older than this gets another time with its next change, in milliseconds. */
const SETTLED_MS = 3000;

/** How long an origin must have lost nearly all of its pages before a step takes that over, in milliseconds. */
const LOSS_MS = 5000;

/** A comparison of all pages that is due does not keep a step away for longer, in milliseconds. */
const FULL_WAIT_MS = 1000;

/** Asks for another snapshot a little later: the origin may be on its way into another state. */
export class UnsettledLossError extends Error {
  constructor() {
    super('The origin has just lost nearly all of its pages');
    this.name = 'UnsettledLossError';
  }
}

export interface FollowOptions {
  /** How often the origin's side looks for changes, and this side for writes of others, in milliseconds. */
  readonly lookEveryMs: number;
  /** How long a comparison of all pages counts, in milliseconds. */
  readonly fullEveryMs: number;
  /** The least time between the snapshots of two steps, in milliseconds; default 0. */
  readonly stepEveryMs?: number | undefined;
  readonly hash: HashAlgorithm;
}

interface SentPages {
  readonly key: Uint8Array;
  readonly pages: ReceivedPages;
}

interface KeptReplica {
  readonly key: Uint8Array;
  readonly nodes: KnownNodes;
  readonly size: PageSize;
  /** What the state with these hashes is recognized by. */
  readonly stamp: Uint8Array | undefined;
}

/**
 * What a replica agent keeps of a replica that follows its origin. On the far side it lives as long as the connection;
 * on the near side the stamps prove that it still holds on the next one.
 */
export class FollowedReplica {
  readonly lookEveryMs: number;
  key: Uint8Array = randomBytes(HASH_KEY_BYTES);
  readonly quick = undefined;
  readonly #options: FollowOptions;
  readonly #pace = new Pace();
  #comparedAt = performance.now();
  #kept: KeptReplica | undefined;
  #audit: HashAudit | undefined;
  /** The pages of the last commit that came on this connection, and the key of that time. */
  #sent: SentPages | undefined;
  /** Those of the state that the attempt under way makes. */
  #sentNext: SentPages | undefined;
  /** True if the hashes of the old state were known. */
  #isKnown = false;
  /** True if an attempt has used what was known. */
  #isUsed = false;
  #steppedAt = -Infinity;
  /** When the last snapshot came. */
  #snapshotAt = -Infinity;
  /** When a snapshot first showed a great loss; undefined if the last one showed none. */
  #lossSince: number | undefined;
  #path: string | undefined;
  /** What the outside of the replica has to look like, if nobody writes it. */
  #outside: string | undefined;

  constructor(options: FollowOptions) {
    this.#options = options;
    this.lookEveryMs = options.lookEveryMs;
  }

  /** True if all pages have to be compared again. */
  get isFullDue(): boolean {
    return performance.now() - this.#comparedAt >= this.#options.fullEveryMs;
  }

  /** True once a step is whole: the origin's side answers later ones when something has changed. */
  get hasStepped(): boolean {
    return this.#steppedAt > -Infinity;
  }

  /** How long until the next attempt may begin, in milliseconds; 0 or less if it may begin now. */
  get untilDueMs(): number {
    // If each step compares all pages, all of them keep the interval.
    const waitMs = this.#options.fullEveryMs === 0 ? Infinity : FULL_WAIT_MS;
    const earliest = this.isFullDue ? this.#steppedAt + Math.min(this.lookEveryMs, waitMs) : 0;
    const lossDue = this.#lossSince === undefined ? 0 : this.#lossSince + LOSS_MS;
    const stepDue = this.#snapshotAt + (this.#options.stepEveryMs ?? 0);
    return Math.max(earliest, lossDue, stepDue, this.#pace.notBefore) - performance.now();
  }

  /** Call it when an attempt has failed, and the next one comes on another connection. */
  giveUp(): void {
    this.#sent = undefined;
    this.#pace.giveUp();
  }

  /**
   * Begins an attempt. One that must compare all pages, because an earlier one found wrong what it used, takes a new
   * key, under which nothing is known.
   */
  start(mustCompare: boolean): void {
    if (!(mustCompare && this.#isUsed) && !this.isFullDue) return;
    this.key = randomBytes(HASH_KEY_BYTES);
    this.#comparedAt = performance.now();
  }

  /** Call it for each snapshot before it is compared. Throws UnsettledLossError for a great loss that is new. */
  consider(isGreatLoss: boolean): void {
    this.#snapshotAt = performance.now();
    if (isGreatLoss) this.#lossSince ??= performance.now();
    const isSettled = this.#lossSince === undefined || performance.now() - this.#lossSince >= LOSS_MS;
    if (isGreatLoss && !isSettled) throw new UnsettledLossError();
    this.#lossSince = undefined;
  }

  /** As `ReplicaMemory.recall`. */
  recall(
    stamp: Uint8Array | undefined,
    size: PageSize,
  ): { nodes?: KnownNodes; audit?: HashAudit; sent?: ReceivedPages } {
    this.#pace.start();
    const kept = this.#kept;
    this.#kept = undefined;
    this.#audit = undefined;
    this.#isUsed = true;
    const isSame = kept?.size === size && kept.stamp !== undefined && stamp !== undefined;
    const isTrue = isSame && Buffer.compare(kept.stamp, stamp) === 0;
    this.#isKnown = isTrue && Buffer.compare(kept.key, this.key) === 0;
    // If another program wrote such a page since, the delta has the wrong hash, and the page is fetched whole.
    const sent = this.#sent?.key === this.key ? this.#sent.pages : new ReceivedPages();
    this.#sentNext = { key: this.key, pages: sent };
    // An attempt that fails leaves the origin's side with versions that this side does not have.
    this.#sent = undefined;
    if (this.#isKnown && kept !== undefined) return { nodes: kept.nodes, sent };
    if (!isTrue) return { sent };
    this.#audit = new HashAudit(kept.nodes, createPageHasher(this.#options.hash, kept.key, size));
    return { audit: this.#audit, sent };
  }

  /** What the comparison found wrong in what was known. */
  get warnings(): readonly string[] {
    const { size = 0 } = this.#audit?.wrong ?? {};
    const [first] = this.#audit?.wrong ?? [];
    this.#audit = undefined;
    if (size === 0) return [];
    return [
      `Pages of the replica had changed although nothing had written them since the last step (${size} places, the first at page ${first}). They are right now. Check the disk`,
    ];
  }

  /** Nothing: the pair is known as long as the connection lasts. */
  rememberPair(): void {}

  /** As `ReplicaMemory.rememberTree`; call it at the end of a step. */
  rememberTree(nodes: KnownNodes, size: PageSize, stamp: Uint8Array | undefined, isUnchanged: boolean): void {
    const { key } = this;
    const { level, pageCount, hashes } = nodes;
    // A later write in the same tick of the clock would leave a fresh stamp as it is; a commit's is taken after the tick.
    const isFresh = isUnchanged && !this.#isKnown && !this.#isSettled();
    const known = { level, pageCount, hashes };
    this.#kept = { key, nodes: known, size, stamp: isFresh ? undefined : stamp };
    this.#sent = this.#sentNext;
    this.#isUsed = false;
    this.#steppedAt = performance.now();
    this.#pace.end(!this.#isKnown);
  }

  /**
   * Looks at the outside of the replica: before it is read, so that a later write shows, and again when this side has
   * written it.
   */
  look(path: string): void {
    this.#path = path;
    this.#outside = this.#look();
  }

  /** Makes another step due, because nothing proves that the replica is what this side has written. */
  doubt(): void {
    this.#outside = undefined;
  }

  /** True if this side has a reason for a step, whether or not the origin has changed. */
  get needsStep(): boolean {
    return this.isFullDue || this.isTouched;
  }

  /** True if another program may have written the replica since the last step. Opens nothing. */
  get isTouched(): boolean {
    return this.#path !== undefined && this.#look() !== this.#outside;
  }

  #look(): string {
    try {
      return outerStamp(this.#path as string);
    } catch {
      return '';
    }
  }

  #isSettled(): boolean {
    try {
      return this.#path !== undefined && Date.now() - statSync(this.#path).ctimeMs > SETTLED_MS;
    } catch {
      return false;
    }
  }
}
