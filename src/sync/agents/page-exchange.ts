import { message } from '../../../protocol/encode.ts';
import { MAX_OUTSTANDING_PAGE_BYTES, MAX_PAGES_REQUEST_BYTES } from '../../../protocol/limits.ts';
import type { MessageOf } from '../../../protocol/messages.ts';
import { blockHashBytes, decodeBatch, encodeWanted, maxBatchBytes } from '../../../protocol/page-batch.ts';
import type { BatchPage, WantedPage } from '../../../protocol/page-batch.ts';
import { SqlsyncError } from '../../errors.ts';
import { applyDelta } from '../../pages/delta.ts';
import type { PageHasher } from '../../pages/hash.ts';
import type { HashTree } from '../../pages/hash-tree.ts';
import { parseHeader } from '../../pages/header.ts';
import { readScattered } from '../../pages/page-source.ts';
import type { PageSink, PageSource } from '../../pages/page-source.ts';
import { pageNumber } from '../../pages/page-types.ts';
import type { PageSize } from '../../pages/page-types.ts';
import { decodeBatchBytes } from '../link/compression.ts';
import { decodePeerData } from '../link/connection.ts';
import type { Connection } from '../link/connection.ts';
import { PageMismatchError } from './root-mismatch.ts';
import type { ReceivedPages } from '../quick/sent-versions.ts';
import { hashPrefix, unasked } from './tree-walk.ts';
import type { DifferingPage, TreeWalk } from './tree-walk.ts';

/** How many pages requested as deltas arrive before the exchange judges whether deltas pay. */
const DELTA_TRIAL_PAGES = 2048;

const FIRST_PAGE = pageNumber(1);

/** A requested page, with its old version if a delta is expected. */
interface Expected extends WantedPage {
  readonly old: Uint8Array | undefined;
  /** How the result's hash must begin; undefined if the page did not exist here, so that only the root can check it. */
  readonly hashPrefix: number | undefined;
}

/** The pages of one request. */
interface Request {
  readonly pages: readonly Expected[];
  /** Their old versions, one after another; undefined if all pages come whole. */
  readonly versions: Uint8Array | undefined;
}

function whole(number: number, prefix: number | undefined): Expected {
  return { pageNumber: number, basis: 'none', old: undefined, hashPrefix: prefix };
}

function wholePages(pages: readonly Expected[]): Request {
  return { pages, versions: undefined };
}

/**
 * Fetches pages. Requests them in batches, as deltas if there is an old version and deltas pay, checks what comes, and
 * puts it into the sink. Bounds the bytes under way.
 */
export class PageExchange {
  /** Pages that have come so far, and how many of them as deltas. */
  received = 0;
  deltas = 0;
  readonly #connection: Connection;
  readonly #sink: PageSink;
  readonly #hasher: PageHasher;
  readonly #pageSize: PageSize;
  readonly #sent: ReceivedPages | undefined;
  readonly #requests = new Map<number, Request>();
  /** Buffers for old versions, used again and again. */
  readonly #spareVersions: Uint8Array[] = [];
  #nextId = 1;
  #outstandingBytes = 0;
  /** Pages that were requested as deltas and have come, in any form. */
  #deltasTried = 0;

  /** @param sent - The pages whose old version came from this origin agent, if the replica follows it; takes those that come. */
  constructor(connection: Connection, sink: PageSink, hasher: PageHasher, sent?: ReceivedPages) {
    this.#connection = connection;
    this.#sink = sink;
    this.#hasher = hasher;
    this.#sent = sent;
    this.#pageSize = hasher.pageSize;
  }

  /** True while pages are under way. */
  get areAsked(): boolean {
    return this.#requests.size > 0;
  }

  /** Requests as many of the pages that the walk has found as may be under way. */
  ask(walk: TreeWalk): void {
    const pageSize = this.#pageSize;
    const limit = Math.max(1, Math.floor(MAX_PAGES_REQUEST_BYTES / pageSize));
    while (this.#outstandingBytes + limit * pageSize <= MAX_OUTSTANDING_PAGE_BYTES) {
      // Sends part of a batch only when no more pages will come to fill it.
      const enough = walk.differingWaiting >= limit || walk.isCompared;
      const request =
        enough && walk.differingWaiting > 0
          ? this.#expectDiffering(walk.takeDiffering(limit), walk.nextDiffering(limit))
          : wholePages(walk.takeAbsent(limit).map((page) => whole(page, undefined)));
      if (request.pages.length === 0) return;
      this.#sendGetPages(request);
    }
  }

  /** If nearly every page comes whole, as after a VACUUM, block hashes are wasted; every eighth batch keeps trying. */
  get #deltasPay(): boolean {
    return (
      this.#deltasTried < DELTA_TRIAL_PAGES || this.deltas > this.#deltasTried / 8 || this.#nextId % 8 === 0
    );
  }

  /** Pages that exist here in another version; one buffer holds all old versions. */
  #expectDiffering(pages: DifferingPage[], next: readonly number[]): Request {
    pages.sort((a, b) => a.pageNumber - b.pageNumber);
    if (!this.#deltasPay) return wholePages(pages.map((page) => whole(page.pageNumber, page.hashPrefix)));
    const pageSize = this.#pageSize;
    const needsOld = (page: number): boolean => this.#sink.needsOld?.(pageNumber(page)) !== false;
    const compared = pages.map((page) => page.pageNumber).filter(needsOld);
    const versions = this.#versionsFor(compared.length);
    readScattered(this.#old(), compared, versions);
    this.#old().readAhead?.(next.filter(needsOld));
    let at = 0;
    const expected = pages.map(({ pageNumber: number, hashPrefix: prefix }): Expected => {
      if (compared[at] !== number) return whole(number, prefix);
      const old = versions.subarray(at * pageSize, ++at * pageSize);
      // Page 1 of a replica differs from the origin's in bytes that no hash covers.
      const isSent = number !== FIRST_PAGE && this.#sent?.has(number) === true;
      return { pageNumber: number, basis: isSent ? 'sent' : 'hashed', old, hashPrefix: prefix };
    });
    return { pages: expected, versions };
  }

  /** Room for so many pages. The few pages of a small change need no large buffer: memory that is new costs time. */
  #versionsFor(pages: number): Uint8Array {
    const bytes = pages * this.#pageSize;
    const spare = this.#spareVersions.pop();
    return spare !== undefined && spare.length >= bytes ? spare : new Uint8Array(bytes);
  }

  #sendGetPages(request: Request): void {
    const { pages: wanted } = request;
    const pageSize = this.#pageSize;
    const hashBytes = blockHashBytes(pageSize);
    const hashed = wanted.filter(({ basis }) => basis === 'hashed');
    const blockHashes = new Uint8Array(hashed.length * hashBytes);
    for (const [i, { old }] of hashed.entries())
      if (old !== undefined) this.#hasher.hashBlocks(old, blockHashes, i * hashBytes);
    const id = this.#nextId++;
    this.#requests.set(id, request);
    this.#outstandingBytes += wanted.length * pageSize;
    this.#connection.send(message('getPages', { id, pages: encodeWanted(wanted), blockHashes }));
  }

  /** Puts the pages of an answer into the sink, and their hashes into the tree. */
  onPages(answer: MessageOf<'pages'>, tree: HashTree): void {
    const request = this.#requests.get(answer.id);
    if (request === undefined) throw unasked('pages');
    this.#requests.delete(answer.id);
    const { pages: expected, versions } = request;
    const pageSize = this.#pageSize;
    this.#outstandingBytes -= expected.length * pageSize;
    const bytes = decodeBatchBytes(answer, maxBatchBytes(pageSize, expected.length));
    const again: Expected[] = [];
    for (const [i, page] of decodePeerData(() => decodeBatch(bytes, pageSize, expected)).entries()) {
      const wanted = expected[i] as Expected;
      if (!this.#take(wanted, page, tree)) again.push(whole(wanted.pageNumber, wanted.hashPrefix));
    }
    if (versions !== undefined) {
      this.#spareVersions.push(versions);
      // The origin agent remembers every page of an answer with deltas.
      for (const { pageNumber: page } of expected) this.#sent?.add(page);
    }
    if (again.length > 0) this.#sendGetPages(wholePages(again));
  }

  /** Puts a page into the sink. Returns false if a block hash collided, so that the page must be fetched whole. */
  #take(wanted: Expected, received: BatchPage, tree: HashTree): boolean {
    const number = pageNumber(wanted.pageNumber);
    let bytes: Uint8Array;
    if (received.bitmap === undefined) bytes = received.data;
    else {
      bytes = wanted.old ?? new Uint8Array(this.#pageSize);
      applyDelta(bytes, received.bitmap, received.data);
    }
    if (wanted.old !== undefined) this.#deltasTried++;
    const hash = tree.hashOf(number, bytes);
    if (wanted.hashPrefix !== undefined && hashPrefix(hash) !== wanted.hashPrefix) {
      if (received.bitmap !== undefined) return false;
      throw new PageMismatchError(number);
    }
    if (number === FIRST_PAGE) checkFirstPage(bytes, this.#pageSize);
    this.#sink.write(number, bytes, received.bitmap === undefined ? undefined : received);
    tree.setPageHash(number, hash);
    this.received++;
    if (received.bitmap !== undefined) this.deltas++;
    return true;
  }

  #old(): PageSource {
    if (this.#sink.old === undefined) throw new Error('there is no old version');
    return this.#sink.old;
  }
}

/** Whatever a peer sends, the result is a database, and one of the announced page size. */
function checkFirstPage(page: Uint8Array, pageSize: PageSize): void {
  if (parseHeader(page)?.pageSize === pageSize) return;
  throw new SqlsyncError(
    'PROTOCOL',
    `The other side sent a page 1 that is not the first of a database with pages of ${pageSize} bytes`,
  );
}
