import { randomBytes } from 'node:crypto';
import { statSync } from 'node:fs';
import type { HashAlgorithm } from '../../../protocol/messages.ts';
import { SqlsyncError } from '../../errors.ts';
import { HashAudit } from '../../pages/hash-audit.ts';
import { createPageHasher, HASH_KEY_BYTES } from '../../pages/hash.ts';
import type { PageHasher } from '../../pages/hash.ts';
import type { KnownNodes } from '../../pages/hash-tree.ts';
import type { PageSize } from '../../pages/page-types.ts';
import type { WalLook } from '../../pages/wal-changes.ts';
import { countsStill } from './quick-check.ts';
import type { QuickOptions } from './quick-check.ts';
import { MAX_AGE_MS } from './cache-folder.ts';
import {
  dropTreesOf,
  loadTree,
  loadTreeHead,
  loadTreesOf,
  saveTree,
  touchTree,
  treeTime,
} from './tree-file.ts';
import type { StoredTree, TreeHead, TreePlace } from './tree-file.ts';

/** Smaller databases are hashed in less time than it takes to keep their hashes. */
const MIN_BYTES = Number(process.env['SQLSYNC_TREE_CACHE_MIN_BYTES'] ?? 256 * 1024 * 1024);

/** True for a database for which it pays to keep the hashes. */
export function isWorthATree(bytes: number): boolean {
  return bytes >= MIN_BYTES;
}

/** With more in its WAL an origin may have changed much. */
const MAX_SMALL_WAL_BYTES = 16 * 1024 * 1024;

/**
 * True if the hashes of both sides seem to be known, and little seems to have changed, so that few pages will probably
 * be read. Opens neither database, and proves nothing. Throws the system's errors.
 */
export function looksKnown(options: QuickOptions, originPath: string): boolean {
  const place = { side: 'replica', path: options.replicaPath, other: options.originName } as const;
  const head = loadTreeHead(place);
  if (head === undefined || head.state === '') return false;
  if (!countsStill(options, { ...head, comparedAt: head.hashedAt })) return false;
  const wal = statSync(`${originPath}-wal`, { throwIfNoEntry: false })?.size ?? 0;
  const origin = { side: 'origin', path: originPath, other: head.key } as const;
  return (
    wal <= MAX_SMALL_WAL_BYTES &&
    statSync(originPath).ctimeMs < treeTime(origin) &&
    statSync(options.replicaPath).ctimeMs < treeTime(place)
  );
}

/** A snapshot of an origin that can tell what changed since an earlier one. */
export interface LookedAt {
  readonly path: string;
  readonly pageSize: PageSize;
  readonly pageCount: number;
  readonly look?: WalLook | undefined;
  changedSince?(look: WalLook): number[] | undefined;
}

/**
 * The hashes of an origin's snapshot, from those of an earlier one under the same key, of which only the pages that
 * changed since are hashed again. What a file says of that snapshot stays true for ever, so a lost or old one only
 * costs time.
 */
export class OriginTree {
  readonly known: KnownNodes | undefined;
  /** Checks the pages that another key's tree says are unchanged; only without `known`. */
  readonly audit: HashAudit | undefined;
  readonly #place: TreePlace;
  readonly #head: Omit<TreeHead, 'level' | 'pageCount'>;
  /** True if the file already holds what `remember` would write. */
  readonly #isKept: boolean;

  /** Undefined if nothing could prove later what changed since this snapshot, or if it is too small. */
  static of(
    origin: LookedAt,
    hash: HashAlgorithm,
    key: Uint8Array,
    hasher: PageHasher,
  ): OriginTree | undefined {
    const { look } = origin;
    if (look === undefined || !isWorthATree(origin.pageCount * origin.pageSize)) return undefined;
    try {
      return new OriginTree(origin, look, { hash, key: Buffer.from(key).toString('hex') }, hasher);
    } catch {
      return undefined; // a user without a cache folder
    }
  }

  private constructor(
    origin: LookedAt,
    look: WalLook,
    how: Pick<TreeHead, 'hash' | 'key'>,
    { hashBytes }: PageHasher,
  ) {
    this.#place = { side: 'origin', path: origin.path, other: how.key };
    const tree = loadTree(this.#place, hashBytes);
    this.known = tree && nodesOf(tree, origin, how.hash);
    const hashedAt = this.known === undefined ? Date.now() : (tree as StoredTree).hashedAt;
    this.#head = { ...how, hashedAt, pageSize: origin.pageSize, state: JSON.stringify(look) };
    this.#isKept = this.known?.changed?.length === 0 && tree?.state === this.#head.state;
    if (this.known === undefined) this.audit = auditOf(origin, this.#place);
  }

  /** For users who ask for details. */
  get notes(): readonly string[] {
    const changed = this.known?.changed?.length;
    if (changed === undefined) return [];
    return [
      `${this.#place.path} has new frames in its WAL for ${changed} pages; the hashes of the others are known.`,
    ];
  }

  /** Keeps the hashes of this snapshot for the next one. Never throws: the next one is then hashed whole. */
  remember({ level, pageCount, hashes }: KnownNodes): void {
    if (this.#isKept) return touchTree(this.#place);
    try {
      saveTree(this.#place, { ...this.#head, level, pageCount, hashes });
    } catch {
      // The cache folder may be of a disk that is full, or not writable.
    }
  }

  /** Throws SqlsyncError ROOT_MISMATCH if the audit found something, and forgets all that is known of this origin. */
  checkAudit(): void {
    const { size = 0 } = this.audit?.wrong ?? {};
    if (size === 0) return;
    dropTreesOf(this.#place);
    const [first] = this.audit?.wrong ?? [];
    throw new SqlsyncError(
      'ROOT_MISMATCH',
      `Pages of origin ${this.#place.path} have changed although no program has written them since an earlier run (${size} places, the first at page ${first})`,
      {
        hint: 'Nothing was changed. Check the disk, and the database with PRAGMA integrity_check: the replica may be the better copy. To copy the origin as it is, run sqlsync again.',
      },
    );
  }
}

/** The hashes in `tree`, and the pages that changed since; undefined if it does not count or that is not known. */
function nodesOf(tree: StoredTree, origin: LookedAt, hash: HashAlgorithm): KnownNodes | undefined {
  const age = Date.now() - tree.hashedAt;
  if (tree.hash !== hash || tree.pageSize !== origin.pageSize || !(age >= 0 && age < MAX_AGE_MS))
    return undefined;
  if (tree.state === '') return undefined;
  const changed = origin.changedSince?.(JSON.parse(tree.state) as WalLook);
  return changed && { ...tree, changed };
}

function auditOf(origin: LookedAt, place: TreePlace): HashAudit | undefined {
  const hasherOf = (tree: TreeHead): PageHasher =>
    createPageHasher(tree.hash, Buffer.from(tree.key, 'hex'), origin.pageSize);
  for (const tree of loadTreesOf(place, (head) => hasherOf(head).hashBytes)) {
    const known = nodesOf(tree, origin, tree.hash);
    if (known !== undefined) return new HashAudit(known, hasherOf(tree));
  }
  return undefined;
}

/**
 * The key under which a replica is compared with its origin, and the hashes of the replica under it. One key serves
 * until all pages have to be compared again, which takes a new one: nothing is known under it, on neither side.
 */
export class ReplicaTree {
  readonly key: Uint8Array;
  /** When all pages were compared under this key, in milliseconds since 1970. */
  readonly comparedAt: number;
  readonly #place: TreePlace;
  readonly #hash: HashAlgorithm;
  /** True if the key is that of the file. */
  readonly isKnown: boolean;

  constructor(options: QuickOptions) {
    this.#place = { side: 'replica', path: options.replicaPath, other: options.originName };
    this.#hash = options.hash;
    const head = loadTreeHead(this.#place);
    this.isKnown = head !== undefined && countsStill(options, { ...head, comparedAt: head.hashedAt });
    this.key = this.isKnown ? Buffer.from((head as TreeHead).key, 'hex') : randomBytes(HASH_KEY_BYTES);
    this.comparedAt = this.isKnown ? (head as TreeHead).hashedAt : Date.now();
  }

  /** The hashes of a replica with this stamp; undefined if they are not known under this key. */
  known(stamp: Uint8Array | undefined, size: PageSize): KnownNodes | undefined {
    return this.isKnown ? this.#load(stamp, size) : undefined;
  }

  /** Checks a replica with this stamp, if it is compared under a new key, by its hashes under the last one. */
  audit(stamp: Uint8Array | undefined, size: PageSize): HashAudit | undefined {
    const tree = this.isKnown ? undefined : this.#load(stamp, size);
    return tree && new HashAudit(tree, createPageHasher(tree.hash, Buffer.from(tree.key, 'hex'), size));
  }

  /**
   * Keeps the hashes of a replica with this stamp; without a stamp only the key, which the origin's side may know.
   * Throws the system's errors.
   */
  remember(
    { level, pageCount, hashes }: KnownNodes,
    pageSize: PageSize,
    stamp: Uint8Array | undefined,
  ): void {
    const state = stamp === undefined ? '' : Buffer.from(stamp).toString('hex');
    const how = { key: Buffer.from(this.key).toString('hex'), hash: this.#hash, hashedAt: this.comparedAt };
    const kept = state === '' ? new Uint8Array(0) : hashes;
    saveTree(this.#place, { ...how, pageSize, pageCount, level, state, hashes: kept });
  }

  #load(stamp: Uint8Array | undefined, size: PageSize): StoredTree | undefined {
    const head = stamp === undefined ? undefined : loadTreeHead(this.#place);
    if (head === undefined || stamp === undefined) return undefined;
    if (head.state !== Buffer.from(stamp).toString('hex') || head.pageSize !== size) return undefined;
    const key = Buffer.from(head.key, 'hex');
    const tree = loadTree(this.#place, createPageHasher(head.hash, key, size).hashBytes);
    // Another run may have put another tree in its place.
    const isSame = tree?.key === head.key && tree.state === head.state;
    return isSame && (!this.isKnown || key.equals(this.key)) ? tree : undefined;
  }
}
