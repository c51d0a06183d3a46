import { message } from '../../../protocol/encode.ts';
import { MAX_PAGES_REQUEST_BYTES } from '../../../protocol/limits.ts';
import type { CompressionMode, MessageOf } from '../../../protocol/messages.ts';
import { blockHashBytes, decodeWanted, encodeBatch } from '../../../protocol/page-batch.ts';
import type { BatchPage, WantedPage } from '../../../protocol/page-batch.ts';
import { SqlsyncError } from '../../errors.ts';
import { makeDelta } from '../../pages/delta.ts';
import type { PageHasher } from '../../pages/hash.ts';
import type { HashTree } from '../../pages/hash-tree.ts';
import { readScattered } from '../../pages/page-source.ts';
import type { PageSource } from '../../pages/page-source.ts';
import { pageNumber } from '../../pages/page-types.ts';
import { encodeBatchBytes } from '../link/compression.ts';
import type { EncodedBatch } from '../link/compression.ts';
import { CompressionChoice } from '../link/compression-choice.ts';
import { decodePeerData } from '../link/connection.ts';

/** Answers the questions for pages of one snapshot: whole, or as deltas against the versions that the peer has. */
export class PageServer {
  readonly #snapshot: PageSource;
  readonly #tree: HashTree;
  readonly #hasher: PageHasher;
  readonly #compression: CompressionMode;
  readonly #choice = new CompressionChoice();

  constructor(snapshot: PageSource, tree: HashTree, hasher: PageHasher, compression: CompressionMode) {
    this.#snapshot = snapshot;
    this.#tree = tree;
    this.#hasher = hasher;
    this.#compression = compression;
  }

  /** Throws SqlsyncError: PROTOCOL for a question beyond the protocol's limits, ORIGIN_* if a page cannot be read. */
  answer(question: MessageOf<'getPages'>): MessageOf<'pages'> {
    const { pageSize, pageCount } = this.#snapshot;
    const wanted = decodePeerData(() => decodeWanted(question.pages, pageCount));
    if (wanted.length * pageSize > MAX_PAGES_REQUEST_BYTES)
      throw requestOutOfRange(`${wanted.length} pages at once`);
    if (wanted.some((page) => page.hasBlocks)) return this.#answerDeltas(question, wanted);
    if (question.blockHashes.length > 0) throw requestOutOfRange('block hashes of no page');
    return message('pages', {
      id: question.id,
      ...this.#encode(wanted.length, () => this.#readWhole(wanted)),
    });
  }

  /** A batch that is mostly whole pages, as the choice for them says. */
  #encode(wholePages: number, batch: () => Uint8Array): EncodedBatch {
    if (this.#compression !== 'auto') return encodeBatchBytes(batch(), this.#compression);
    const mode = this.#choice.begin(wholePages * this.#snapshot.pageSize);
    const encoded = encodeBatchBytes(batch(), mode);
    this.#choice.end();
    return encoded;
  }

  /** A batch of whole pages, each run read straight to its place. */
  #readWhole(wanted: readonly WantedPage[]): Uint8Array {
    const { pageSize } = this.#snapshot;
    // Skips filling the pages with zeros. The kinds need it, since 0 stands for a whole page.
    const batch = Buffer.allocUnsafeSlow(wanted.length * (1 + pageSize));
    batch.fill(0, 0, wanted.length);
    const pages = batch.subarray(wanted.length);
    readScattered(
      this.#snapshot,
      wanted.map(({ pageNumber: page }) => page),
      pages,
    );
    // A new replica requests pages that were never hashed; hashing them now saves a second read for the root.
    for (const [i, page] of wanted.entries()) {
      this.#tree.learn(pageNumber(page.pageNumber), pages.subarray(i * pageSize, (i + 1) * pageSize));
    }
    this.#snapshot.readAhead?.(this.#likelyNext(wanted));
    return batch;
  }

  /** A peer that requests a run of pages will request the next run. */
  #likelyNext(wanted: readonly WantedPage[]): number[] {
    const first = wanted[0]?.pageNumber ?? 1;
    const last = wanted.at(-1)?.pageNumber ?? 0;
    if (last - first >= wanted.length) return [];
    const end = Math.min(last + wanted.length, this.#snapshot.pageCount);
    return Array.from({ length: end - last }, (_, i) => last + 1 + i);
  }

  #answerDeltas(
    { id, blockHashes }: MessageOf<'getPages'>,
    wanted: readonly WantedPage[],
  ): MessageOf<'pages'> {
    const pages = this.#makeDeltas(wanted, blockHashes);
    const wholePages = pages.filter((page) => page.bitmap === undefined).length;
    const batch = encodeBatch(pages);
    if (wholePages * 2 >= pages.length)
      return message('pages', { id, ...this.#encode(wholePages, () => batch) });
    // Deltas are few bytes, and shrink by half.
    const mode = this.#compression === 'none' ? 'none' : 'zstd';
    return message('pages', { id, ...encodeBatchBytes(batch, mode) });
  }

  #makeDeltas(wanted: readonly WantedPage[], blockHashes: Uint8Array): BatchPage[] {
    const { pageSize } = this.#snapshot;
    const hashBytes = blockHashBytes(pageSize);
    if (blockHashes.length !== wanted.filter((page) => page.hasBlocks).length * hashBytes) {
      throw requestOutOfRange('deltas with too few or too many block hashes');
    }
    const pages = Buffer.allocUnsafeSlow(wanted.length * pageSize);
    readScattered(
      this.#snapshot,
      wanted.map(({ pageNumber: page }) => page),
      pages,
    );
    const hashes = new Uint8Array(wanted.length * hashBytes);
    this.#hasher.hashBlocks(pages, hashes, 0);
    let at = 0;
    return wanted.map(({ hasBlocks }, i): BatchPage => {
      const page = pages.subarray(i * pageSize, (i + 1) * pageSize);
      if (!hasBlocks) return { bitmap: undefined, data: page };
      at += hashBytes;
      return makeDelta(
        page,
        hashes.subarray(i * hashBytes, (i + 1) * hashBytes),
        blockHashes.subarray(at - hashBytes, at),
      );
    });
  }
}

/** The error for a question that goes beyond the snapshot or a limit. */
export function requestOutOfRange(what: string): SqlsyncError {
  return new SqlsyncError('PROTOCOL', `The other side asked for ${what}`);
}
