import type { HashAlgorithm } from '../../../protocol/messages.ts';
import { SqlsyncError } from '../../errors.ts';
import { HashAudit } from '../../pages/hash-audit.ts';
import { createPageHasher } from '../../pages/hash.ts';
import type { KnownNodes } from '../../pages/hash-tree.ts';
import type { PageSize } from '../../pages/page-types.ts';

/** What is known of an origin before its pages are hashed, and what to do with what they showed. */
export interface OriginMemory {
  /** The hashes of an earlier snapshot, and the pages that changed since. */
  readonly known: KnownNodes | undefined;
  /** Looks at the pages that are hashed. */
  readonly audit: HashAudit | undefined;
  /** For users who ask for details. */
  readonly notes: readonly string[];
  /** Keeps the hashes of this snapshot. Never throws. */
  remember(nodes: KnownNodes): void;
  /** Throws SqlsyncError if the audit found something. */
  checkAudit(): void;
}

/** How the pages of a snapshot are hashed. */
export interface HashChoice {
  readonly hash: HashAlgorithm;
  readonly key: Uint8Array;
}

interface KeptNodes extends HashChoice {
  readonly nodes: KnownNodes;
  /** Pages that changed since these nodes were kept. */
  readonly changed: ReadonlySet<number>;
  readonly pageSize: PageSize;
}

/** A snapshot, and what changed since the last one. */
export interface NextSnapshot {
  readonly path: string;
  readonly pageSize: PageSize;
  readonly pageCount: number;
  /** The pages that changed, and the fewest that there were meanwhile; undefined if that is not known. */
  readonly changes: { readonly pages: ReadonlySet<number>; readonly leastPages: number } | undefined;
}

/**
 * The hashes of the last snapshot of an origin, in memory. The next one uses them, and puts its own in their place. If
 * it is given up instead, the one after it uses them again.
 */
export class KeptTree {
  #kept: KeptNodes | undefined;
  /** True if the last snapshot came to its end. */
  #isWhole = false;

  /** True if the last snapshot came to its end, and its hashes are known under this key. */
  has(key: Uint8Array): boolean {
    return this.#isWhole && this.#kept !== undefined && Buffer.compare(this.#kept.key, key) === 0;
  }

  /** What is known of the next snapshot. */
  memoryOf(next: NextSnapshot, { hash, key }: HashChoice): OriginMemory {
    const kept = this.#next(next);
    this.#kept = kept?.nodes.level === 0 ? kept : undefined;
    this.#isWhole = false;
    const nodes = kept && { ...kept.nodes, changed: [...kept.changed] };
    const isSameKey = kept?.hash === hash && Buffer.compare(kept.key, key) === 0;
    const known = isSameKey ? nodes : undefined;
    const audit = isSameKey || kept === undefined || nodes === undefined ? undefined : auditOf(nodes, kept);
    return {
      known,
      audit,
      notes: [],
      remember: (now) => {
        const { level, pageCount, hashes } = now;
        const { pageSize } = next;
        this.#kept = { nodes: { level, pageCount, hashes }, changed: new Set(), hash, key, pageSize };
        this.#isWhole = true;
      },
      checkAudit: () => {
        // The next step must not find the same again.
        if ((audit?.wrong.size ?? 0) > 0) this.#kept = undefined;
        checkAudit(next.path, audit);
      },
    };
  }

  /**
   * What is kept, with the pages that changed up to this snapshot. A tree changes the hashes of these pages only; above
   * level 0 also that of the last node.
   */
  #next(next: NextSnapshot): KeptNodes | undefined {
    const changed = changedPages(next);
    if (this.#kept === undefined || this.#kept.pageSize !== next.pageSize || changed === undefined)
      return undefined;
    return { ...this.#kept, changed: new Set([...this.#kept.changed, ...changed]) };
  }
}

function auditOf(nodes: KnownNodes, { hash, key, pageSize }: KeptNodes): HashAudit {
  return new HashAudit(nodes, createPageHasher(hash, key, pageSize));
}

function changedPages({ changes, pageCount }: NextSnapshot): number[] | undefined {
  if (changes === undefined) return undefined;
  const pages = [...changes.pages];
  for (let page = changes.leastPages + 1; page <= pageCount; page++) pages.push(page);
  return pages;
}

function checkAudit(path: string, audit: HashAudit | undefined): void {
  const { size = 0 } = audit?.wrong ?? {};
  if (size === 0) return;
  const [first] = audit?.wrong ?? [];
  throw new SqlsyncError(
    'CHANGES_MISSED',
    `Pages of origin ${path} have changed although no frame of its WAL tells of that (${size} places, the first at page ${first}): the replica did not have these changes until now`,
    {
      hint: 'The next step copies all pages that differ. Check the disk, and the database with PRAGMA integrity_check; if no disk and no program but SQLite wrote the file, please report it.',
    },
  );
}
