import { message } from '../../../protocol/encode.ts';
import { MAX_PAGES_REQUEST_BYTES } from '../../../protocol/limits.ts';
import type { CompressionMode, MessageOf } from '../../../protocol/messages.ts';
import { blockHashBytes, decodeWanted, encodeBatch } from '../../../protocol/page-batch.ts';
import type { BatchPage, WantedPage } from '../../../protocol/page-batch.ts';
import { SqlsyncError } from '../../errors.ts';
import { makeDelta } from '../../pages/delta.ts';
import type { PageHasher } from '../../pages/hash.ts';
import type { HashTree } from '../../pages/hash-tree.ts';
import { readScattered, runsOf } from '../../pages/page-source.ts';
import type { PageSource } from '../../pages/page-source.ts';
import { freeMemory } from '../../transport/chunk-memory.ts';
import { encodeBatchBytes } from '../link/compression.ts';
import type { EncodedBatch } from '../link/compression.ts';
import { CompressionChoice } from '../link/compression-choice.ts';
import { decodePeerData } from '../link/connection.ts';
import type { SentVersions } from '../quick/sent-versions.ts';

/** The pages, and what to do when they were sent. */
export interface PagesAnswer {
  readonly pages: MessageOf<'pages'>;
  readonly onSent: () => void;
}

/** Answers the questions for pages of one snapshot: whole, or as deltas against the versions that the peer has. */
export class PageServer {
  readonly #snapshot: PageSource;
  readonly #tree: HashTree;
  readonly #hasher: PageHasher;
  readonly #compression: CompressionMode;
  readonly #choice = new CompressionChoice();
  readonly #sent: SentVersions | undefined;
  /** The longest batch of whole pages. */
  readonly #batchBytes: number;
  /** Buffers for such batches, used again and again: memory that is new costs more than reading pages into it. */
  readonly #spare: Uint8Array[] = [];

  /** @param sent - The versions that this peer already has of pages, if it follows the origin. */
  constructor(
    snapshot: PageSource,
    tree: HashTree,
    hasher: PageHasher,
    { compression, sent }: { compression: CompressionMode; sent?: SentVersions | undefined },
  ) {
    this.#snapshot = snapshot;
    this.#tree = tree;
    this.#hasher = hasher;
    this.#compression = compression;
    this.#sent = sent;
    const { pageSize } = snapshot;
    this.#batchBytes = Math.max(1, Math.floor(MAX_PAGES_REQUEST_BYTES / pageSize)) * (1 + pageSize);
  }

  /** Throws SqlsyncError: PROTOCOL for a question beyond the protocol's limits, ORIGIN_* if a page cannot be read. */
  answer(question: MessageOf<'getPages'>): PagesAnswer {
    const { pageSize, pageCount } = this.#snapshot;
    const wanted = decodePeerData(() => decodeWanted(question.pages, pageCount));
    if (wanted.length * pageSize > MAX_PAGES_REQUEST_BYTES)
      throw requestOutOfRange(`${wanted.length} pages at once`);
    if (wanted.some(({ basis }) => basis !== 'none')) return this.#answerDeltas(question, wanted);
    if (question.blockHashes.length > 0) throw requestOutOfRange('block hashes of no page');
    const buffer = this.#spare.pop() ?? Buffer.allocUnsafeSlow(this.#batchBytes);
    const encoded = this.#encode(wanted.length, () => this.#readWhole(wanted, buffer));
    const reuse = (): void => void this.#spare.push(buffer);
    const isBuffer = encoded.data.buffer === buffer.buffer;
    if (!isBuffer) reuse();
    return {
      pages: message('pages', { id: question.id, ...encoded }),
      onSent: isBuffer ? reuse : () => freeMemory(encoded.data),
    };
  }

  /** A batch that is mostly whole pages, as the choice for them says. */
  #encode(wholePages: number, batch: () => Uint8Array): EncodedBatch {
    if (this.#compression !== 'auto') return encodeBatchBytes(batch(), this.#compression);
    const mode = this.#choice.begin(wholePages * this.#snapshot.pageSize);
    const encoded = encodeBatchBytes(batch(), mode);
    this.#choice.end();
    return encoded;
  }

  /** A batch of whole pages, each run read straight to its place in `buffer`. */
  #readWhole(wanted: readonly WantedPage[], buffer: Uint8Array): Uint8Array {
    const { pageSize } = this.#snapshot;
    const batch = buffer.subarray(0, wanted.length * (1 + pageSize));
    batch.fill(0, 0, wanted.length); // the kinds: 0 stands for a whole page
    const pages = batch.subarray(wanted.length);
    const numbers = wanted.map(({ pageNumber: page }) => page);
    readScattered(this.#snapshot, numbers, pages);
    // A new replica requests pages that were never hashed; hashing them now saves a second read for the root.
    for (const { first, from, to } of runsOf(numbers))
      this.#tree.learn(first, pages.subarray(from * pageSize, to * pageSize));
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

  #answerDeltas({ id, blockHashes }: MessageOf<'getPages'>, wanted: readonly WantedPage[]): PagesAnswer {
    const pages = this.#makeDeltas(wanted, blockHashes);
    const wholePages = pages.filter((page) => page.bitmap === undefined).length;
    const batch = encodeBatch(pages);
    // Deltas are few bytes, and shrink by half.
    const mode = this.#compression === 'none' ? 'none' : 'zstd';
    const isMostlyWhole = wholePages * 2 >= pages.length;
    const encoded = isMostlyWhole ? this.#encode(wholePages, () => batch) : encodeBatchBytes(batch, mode);
    return { pages: message('pages', { id, ...encoded }), onSent: () => freeMemory(encoded.data) };
  }

  #makeDeltas(wanted: readonly WantedPage[], blockHashes: Uint8Array): BatchPage[] {
    const { pageSize } = this.#snapshot;
    const hashBytes = blockHashBytes(pageSize);
    if (blockHashes.length !== wanted.filter(({ basis }) => basis === 'hashed').length * hashBytes) {
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
    return wanted.map(({ pageNumber, basis }, i): BatchPage => {
      const page = pages.subarray(i * pageSize, (i + 1) * pageSize);
      const now = hashes.subarray(i * hashBytes, (i + 1) * hashBytes);
      let old = basis === 'sent' ? this.#sent?.of(pageNumber) : undefined;
      if (basis === 'hashed') old = blockHashes.subarray(at, (at += hashBytes));
      this.#sent?.add(pageNumber, now);
      return old === undefined ? { bitmap: undefined, data: page } : makeDelta(page, now, old);
    });
  }
}

/** The error for a question that goes beyond the snapshot or a limit. */
export function requestOutOfRange(what: string): SqlsyncError {
  return new SqlsyncError('PROTOCOL', `The other side asked for ${what}`);
}
