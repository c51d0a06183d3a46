import { Announcements } from '../request/announcements.ts';
import { randomBytes } from 'node:crypto';
import { statSync } from 'node:fs';
import { resolve } from 'node:path';
import { message } from '../../../protocol/encode.ts';
import {
  CHILD_HASH_BYTES,
  MAX_HASHES_PER_MESSAGE,
  MAX_PAGE_COUNT,
  topLevel,
  TREE_FANOUT,
} from '../../../protocol/limits.ts';
import { OUTCOMES } from '../../../protocol/messages.ts';
import type { HashAlgorithm, MessageOf } from '../../../protocol/messages.ts';
import { toGaps } from '../../../protocol/page-batch.ts';
import { sanitizeLine, SqlsyncError, toSqlsyncError } from '../../errors.ts';
import { createPageHasher, HASH_KEY_BYTES } from '../../pages/hash.ts';
import { pageSize } from '../../pages/page-types.ts';
import { parseLocation } from '../../transport/location.ts';
import type { Connection } from '../link/connection.ts';
import { closeConnection, connectAgent, orInterrupted } from './conversation.ts';
import { DifferingPages } from './differing-pages.ts';
import { openToRead } from './open-to-read.ts';
import { DEFAULT_BUSY_TIMEOUT_MS, DEFAULT_IDLE_TIMEOUT_MS } from './run-options.ts';
import type { RunOptions } from './run-options.ts';

export interface VerifyOptions extends RunOptions {
  /** Path, `[user@]host:path` or `ssh://…`; both may be remote. */
  readonly a: string;
  readonly b: string;
}

/** One of the two compared databases. */
export interface VerifiedDatabase {
  readonly location: string;
  readonly pageSize: number;
  readonly pageCount: number;
}

/** A table or index with differing pages; '(free)' stands for pages that none of them owns. */
export interface DifferingObject {
  readonly name: string;
  readonly pagesInA: number;
  readonly pagesInB: number;
}

export interface VerifySummary {
  readonly same: boolean;
  readonly a: VerifiedDatabase;
  readonly b: VerifiedDatabase;
  /**
   * Pages that differ or exist on one side only, as ascending ranges of the first and the last page number. At most the
   * first 100,000 ranges. Empty if the page sizes differ.
   */
  readonly differingPages: readonly (readonly [first: number, last: number])[];
  /** The number of all differing pages, and of all ranges. */
  readonly differingPageCount: number;
  readonly differingRangeCount: number;
  readonly objects: readonly DifferingObject[];
  readonly bytesSent: number;
  readonly bytesReceived: number;
  readonly durationMs: number;
}

/** Ranges of differing pages that are kept: a peer may claim that any number of pages differ. */
const MAX_RANGES = 100_000;

/** Differing pages whose owners are asked for, so that the question fits a message. */
const MAX_OWNED_PAGES = 500_000;

/** Not the hash of a copy, which a verification would only repeat: 16 bytes, under another key. */
const VERIFY_HASH: HashAlgorithm = 'sha256';

/**
 * Compares a snapshot of each of two databases, local or remote, without writing anything: both sides are origin
 * agents. The header bytes that belong to each file count as equal. Throws SqlsyncError.
 */
export async function runVerify(options: VerifyOptions): Promise<VerifySummary> {
  return orInterrupted(options.signal, () => compare(options));
}

async function compare(options: VerifyOptions): Promise<VerifySummary> {
  const startedAt = performance.now();
  const key = randomBytes(HASH_KEY_BYTES);
  const sides: Side[] = [];
  try {
    const mayShareProcess = areDifferentFiles(parseLocation(options.a).path, parseLocation(options.b).path);
    for (const location of [options.a, options.b])
      sides.push(await Side.start(location, mayShareProcess, options));
    const [a, b] = sides as [Side, Side];
    await Promise.all([a.open(key, options), b.open(key, options)]);
    const found = await differences(a, b);
    const objects = found.pageCount === 0 ? [] : await owners(a, b, found.first);
    const comparable = a.snapshot.pageSize === b.snapshot.pageSize;
    const [rootOfA, rootOfB] = await Promise.all([a.finish(comparable), b.finish(comparable)]);
    const same = comparable && found.pageCount === 0;
    if (same) refuseContradiction(a, b, Buffer.compare(rootOfA, rootOfB) === 0);
    return {
      same,
      a: a.describe(),
      b: b.describe(),
      differingPages: found.ranges,
      differingPageCount: found.pageCount,
      differingRangeCount: found.rangeCount,
      objects,
      bytesSent: a.connection.bytesSent + b.connection.bytesSent,
      bytesReceived: a.connection.bytesReceived + b.connection.bytesReceived,
      durationMs: Math.round(performance.now() - startedAt),
    };
  } catch (error) {
    throw withoutOrigin(toSqlsyncError(error));
  } finally {
    for (const side of sides) side.connection.transport.terminate();
  }
}

/** False for two names of one file, and where that cannot be known. */
function areDifferentFiles(a: string, b: string): boolean {
  try {
    const [fileOfA, fileOfB] = [statSync(a, { bigint: true }), statSync(b, { bigint: true })];
    return fileOfA.dev !== fileOfB.dev || fileOfA.ino !== fileOfB.ino;
  } catch {
    return false;
  }
}

/** The questions to one origin agent, asked one after another. */
class Side {
  readonly location: string;
  readonly connection: Connection;
  readonly #path: string;
  #snapshot: MessageOf<'snapshot'> | undefined;
  #nextId = 1;

  static async start(text: string, mayShareProcess: boolean, options: VerifyOptions): Promise<Side> {
    const location = parseLocation(text);
    const connection = await connectAgent(location, 'opening', {
      run: options,
      mayShareProcess,
      onWarning: (warning) => options.onWarning?.(warning, 'news'),
    });
    return new Side(text, location.kind === 'local' ? resolve(location.path) : location.path, connection);
  }

  private constructor(location: string, path: string, connection: Connection) {
    this.location = location;
    this.#path = path;
    this.connection = connection;
  }

  get snapshot(): MessageOf<'snapshot'> {
    if (this.#snapshot === undefined) throw new Error('the snapshot is not open');
    return this.#snapshot;
  }

  async open(key: Uint8Array, options: VerifyOptions): Promise<void> {
    const hash = options.hash ?? VERIFY_HASH;
    this.connection.send(
      openToRead({
        path: this.#path,
        key,
        hash,
        busyTimeoutMs: options.busyTimeoutMs ?? DEFAULT_BUSY_TIMEOUT_MS,
        idleTimeoutMs: options.idleTimeoutMs ?? DEFAULT_IDLE_TIMEOUT_MS,
        maxTimeMs: options.maxTimeMs,
      }),
    );
    const snapshot = await this.connection.receiveOnly('snapshot');
    const size = pageSize(snapshot.pageSize);
    const isPossible = size !== undefined && snapshot.pageCount <= MAX_PAGE_COUNT;
    if (!isPossible || snapshot.hashBytes !== createPageHasher(hash, key, size).hashBytes) {
      throw new SqlsyncError('PROTOCOL', `${this.location} announced an impossible snapshot`);
    }
    this.#snapshot = snapshot;
    this.connection.state = 'driving';
    new Announcements(options).snapshot(snapshot);
  }

  nodeCount(level: number): number {
    return Math.ceil(this.snapshot.pageCount / TREE_FANOUT ** level);
  }

  /** All hashes of a level. */
  async hashes(level: number): Promise<Uint8Array> {
    const all = new Uint8Array(this.nodeCount(level) * this.snapshot.hashBytes);
    if (all.length === 0) return all;
    const id = this.#nextId++;
    this.connection.send(message('getHashes', { id, level, first: 0, count: 0 }));
    for (let filled = 0; filled < all.length;) {
      const { data, first, id: answered } = await this.connection.receiveOnly('hashes');
      if (
        answered !== id ||
        first * this.snapshot.hashBytes !== filled ||
        filled + data.length > all.length ||
        data.length === 0
      ) {
        throw new SqlsyncError('PROTOCOL', `${this.location} sent hashes that were not asked for`);
      }
      all.set(data, filled);
      filled += data.length;
    }
    return all;
  }

  /** The hashes of the children (of `level`) of these nodes, by child. */
  async children(level: number, parents: readonly number[]): Promise<Map<number, Uint8Array>> {
    const nodes = this.nodeCount(level);
    const here = parents.filter((parent) => parent * TREE_FANOUT < nodes);
    const hashes = new Map<number, Uint8Array>();
    if (here.length === 0) return hashes;
    const id = this.#nextId++;
    this.connection.send(message('getChildren', { id, level, parents: toGaps(here) }));
    const { data, id: answered } = await this.connection.receiveOnly('hashes');
    const width = Math.min(CHILD_HASH_BYTES, this.snapshot.hashBytes);
    let at = 0;
    for (const parent of here) {
      const end = Math.min((parent + 1) * TREE_FANOUT, nodes);
      for (let child = parent * TREE_FANOUT; child < end; child++, at += width) {
        hashes.set(child, data.subarray(at, at + width));
      }
    }
    if (answered !== id || at !== data.length) {
      throw new SqlsyncError('PROTOCOL', `${this.location} sent hashes that were not asked for`);
    }
    return hashes;
  }

  /** How many of these pages each table and index owns. */
  async owners(pages: readonly number[]): Promise<Map<string, number>> {
    const here = pages.filter((page) => page <= this.snapshot.pageCount);
    if (here.length === 0) return new Map();
    this.connection.send(message('getOwners', { id: this.#nextId++, pages: toGaps(here) }));
    const { names, counts } = await this.connection.receiveOnly('owners');
    if (names.length !== counts.length) {
      throw new SqlsyncError(
        'PROTOCOL',
        `${this.location} sent ${names.length} names with ${counts.length} counts`,
      );
    }
    const pagesOf = new Map<string, number>();
    for (const [i, name] of names.entries()) {
      // Several names may look the same, since long ones are cut.
      const shown = sanitizeLine(name);
      pagesOf.set(shown, (pagesOf.get(shown) ?? 0) + (counts[i] ?? 0));
    }
    return pagesOf;
  }

  /**
   * Lets the agent check that the file it read still has its name, and ends the conversation. Returns the root hash, or
   * 0 bytes if it was not requested.
   */
  async finish(checksFile: boolean): Promise<Uint8Array> {
    let root = new Uint8Array(0);
    if (checksFile) {
      this.connection.send(message('getRoot', {}));
      root = new Uint8Array((await this.connection.receiveOnly('root')).hash);
    }
    this.connection.send(message('release', {}));
    const { pageSize: size, pageCount } = this.snapshot;
    const none = { pagesCompared: pageCount, pagesChanged: 0, pagesTransferred: 0, pagesDelta: 0 };
    const flags = { outcome: OUTCOMES.unchanged, created: false, resumed: false, quick: false };
    const texts = { warnings: [], findings: [] };
    this.connection.send(message('done', { pageSize: size, pageCount, ...none, ...flags, ...texts }));
    await closeConnection(this.connection);
    return root;
  }

  describe(): VerifiedDatabase {
    const { pageSize: size, pageCount } = this.snapshot;
    return { location: this.location, pageSize: size, pageCount };
  }
}

/** The differing nodes, from the top level down to pages, some at a time, so that memory is bounded. */
async function differences(a: Side, b: Side): Promise<DifferingPages> {
  const found = new DifferingPages(MAX_RANGES, MAX_OWNED_PAGES);
  if (a.snapshot.pageSize !== b.snapshot.pageSize) return found;
  const level = topLevel(Math.max(a.snapshot.pageCount, b.snapshot.pageCount));
  const [ofA, ofB] = await Promise.all([a.hashes(level), b.hashes(level)]);
  const width = a.snapshot.hashBytes;
  const nodes: number[] = [];
  for (let node = 0; node < Math.max(a.nodeCount(level), b.nodeCount(level)); node++) {
    const at = node * width;
    if (Buffer.compare(ofA.subarray(at, at + width), ofB.subarray(at, at + width)) !== 0) nodes.push(node);
  }
  await descend(a, b, level, nodes, found);
  return found;
}

async function descend(
  a: Side,
  b: Side,
  level: number,
  nodes: readonly number[],
  found: DifferingPages,
): Promise<void> {
  if (level === 0) {
    for (const node of nodes) found.add(node + 1);
    return;
  }
  const step = MAX_HASHES_PER_MESSAGE / TREE_FANOUT;
  for (let start = 0; start < nodes.length; start += step) {
    const children = await differingChildren(a, b, level - 1, nodes.slice(start, start + step));
    await descend(a, b, level - 1, children, found);
  }
}

async function differingChildren(
  a: Side,
  b: Side,
  level: number,
  parents: readonly number[],
): Promise<number[]> {
  const differing: number[] = [];
  const [ofA, ofB] = await Promise.all([a.children(level, parents), b.children(level, parents)]);
  for (const parent of parents) {
    for (let child = parent * TREE_FANOUT; child < (parent + 1) * TREE_FANOUT; child++) {
      const [hashA, hashB] = [ofA.get(child), ofB.get(child)];
      if (hashA === undefined && hashB === undefined) break;
      if (hashA === undefined || hashB === undefined || Buffer.compare(hashA, hashB) !== 0)
        differing.push(child);
    }
  }
  return differing;
}

/** If no page differs, nothing else may differ: otherwise an agent is wrong, or lies. */
function refuseContradiction(a: Side, b: Side, sameRoot: boolean): void {
  if (sameRoot && a.snapshot.pageCount === b.snapshot.pageCount) return;
  throw new SqlsyncError(
    'ROOT_MISMATCH',
    `No page of ${a.location} and ${b.location} differs by its hash, but their root hashes or sizes do`,
    { hint: 'Run sqlsync again. If it happens again, one of the two sides gives wrong answers.' },
  );
}

async function owners(a: Side, b: Side, pages: readonly number[]): Promise<DifferingObject[]> {
  const [inA, inB] = await Promise.all([a.owners(pages), b.owners(pages)]);
  const names = new Set([...inA.keys(), ...inB.keys()]);
  const objects = [...names].map((name) => ({
    name,
    pagesInA: inA.get(name) ?? 0,
    pagesInB: inB.get(name) ?? 0,
  }));
  return objects.sort((x, y) => Math.max(y.pagesInA, y.pagesInB) - Math.max(x.pagesInA, x.pagesInB));
}

/** Both agents serve their database as an origin; in a comparison neither is one. */
function withoutOrigin(error: SqlsyncError): SqlsyncError {
  if (!/^(?:The other side: )?Origin /.test(error.message)) return error;
  const hint = error.code === 'ORIGIN_NOT_FOUND' ? 'Check the path.' : error.hint;
  return new SqlsyncError(error.code, error.message.replace('Origin', 'Database'), {
    ...(hint === undefined ? {} : { hint }),
    cause: error.cause,
  });
}
