import type { MessageOf, Outcome } from '../../../protocol/messages.ts';
import type { KnownNodes } from '../../pages/hash-tree.ts';
import type { PageSink, SinkTarget } from '../../pages/page-source.ts';
import type { PageSize } from '../../pages/page-types.ts';
import type { QuickCheck } from '../quick/quick-check.ts';
import type { KnownState, PageCopy } from './page-copy.ts';

/** Where a copy goes: what is known about the place before the origin is contacted, and how to open it as a sink. */
export interface Destination {
  readonly path: string;
  /** The origin agent compares this id with its own file; '' if there is no file. */
  readonly fileId: string;
  /** True if it is marked as a copy of this very origin, so that the arguments are not swapped. */
  readonly isKnownCopy?: boolean | undefined;
  /** True if the place was empty before. */
  readonly isNew: boolean;
  /** True if there are pages to compare with. */
  readonly hasOldPages: boolean;
  /** The key of hashes that are already known; undefined for a new key. */
  readonly key?: Uint8Array | undefined;
  readonly warnings: readonly string[];
  /** What earlier runs found; undefined if the pages must be compared. */
  readonly quick?: QuickCheck | undefined;
  /** True if `quick` proves that the sink needs no page, as long as the origin is as `quick` knows it. */
  isKnown?(sink: PageSink): boolean;
  /** The existing copy, and its number of pages; undefined if none exists, or if the user asked to lose it. */
  copyBefore?(sink: PageSink, target: SinkTarget): CopyBefore | undefined;
  /** What is known about the old pages of the sink, before they are read. */
  recall?(sink: PageSink, size: PageSize): KnownState;
  openSink(target: SinkTarget, snapshot: MessageOf<'snapshot'>): Promise<PageSink>;
  /** Commits what was copied and checked; ends without a commit if nothing changed. */
  settle(sink: PageSink, copied: CopiedPages): Promise<Outcome>;
  /**
   * What SQLite finds wrong with the result, one line each, if the user asked for the check. If the check could not be
   * made, adds the reason to `warnings`. Throws SqlsyncError INTERRUPTED.
   */
  findings?(warnings: string[]): Promise<readonly string[]>;
}

/** A copy that another one would replace: its name for messages, and its size in pages of the new copy. */
export interface CopyBefore {
  readonly name: string;
  readonly pages: number;
}

/** What a copy found, before the commit. */
export interface CopiedPages {
  readonly changed: boolean;
  /** True if nothing was compared: see `Destination.quick`. */
  readonly quick: boolean;
  /** The hashes of the result under the key of the copy, if they were made. */
  readonly nodes?: KnownNodes | undefined;
  readonly counts: PageCopy['counts'];
  readonly snapshot: MessageOf<'snapshot'>;
  /** Takes what the user should know, one sentence each. */
  readonly warnings: string[];
}
