import type { MessageOf, Outcome } from '../../../protocol/messages.ts';
import type { PageSink, SinkTarget } from '../../pages/page-source.ts';
import type { PageCopy } from './page-copy.ts';

/** Where a copy goes: what is known of that place before the origin is asked, and how it becomes a sink. */
export interface Destination {
  readonly path: string;
  /** What the origin compares with its own file; '' where there is none. */
  readonly fileId: string;
  /** It is marked as a copy of this very origin, so that the arguments are not swapped. */
  readonly isKnownCopy?: boolean | undefined;
  /** There was nothing in this place before. */
  readonly isNew: boolean;
  /** There are pages to compare with. */
  readonly hasOldPages: boolean;
  /** The key of hashes that are known already; undefined for a new one. */
  readonly key?: Uint8Array | undefined;
  readonly warnings: readonly string[];
  /** The copy that there is, and its pages; undefined if there is none, or its loss is what was asked for. */
  copyBefore?(sink: PageSink, target: SinkTarget): CopyBefore | undefined;
  openSink(target: SinkTarget, snapshot: MessageOf<'snapshot'>): Promise<PageSink>;
  /** Commits what was copied and checked, or ends without where nothing changed. */
  settle(sink: PageSink, copied: CopiedPages): Promise<Outcome>;
  /**
   * What SQLite finds wrong with what is there now, a line each; only where that was asked for. `warnings` takes why it
   * could not look. Throws SqlsyncError INTERRUPTED.
   */
  findings?(warnings: string[]): Promise<readonly string[]>;
}

/** A copy that another one is to replace, as a message names it, and its size in pages of the new one. */
export interface CopyBefore {
  readonly name: string;
  readonly pages: number;
}

/** What a copy found, before it is committed. */
export interface CopiedPages {
  readonly changed: boolean;
  readonly counts: PageCopy['counts'];
  readonly snapshot: MessageOf<'snapshot'>;
  /** Takes what the user should know, each a sentence. */
  readonly warnings: string[];
}
