import { setImmediate as nextTick } from 'node:timers/promises';
import { message } from '../../protocol/encode.ts';
import {
  CHILD_HASH_BYTES,
  MAX_HASHES_PER_MESSAGE,
  MAX_PAGE_COUNT,
  MAX_TEXTS,
  topLevel,
  TREE_FANOUT,
} from '../../protocol/limits.ts';
import {
  COMPRESSION_MODES,
  HASH_ALGORITHMS,
  LEVEL_TOP,
  nameOf,
  OUTCOMES,
  READERS,
} from '../../protocol/messages.ts';
import type { CompressionMode, Message, MessageOf } from '../../protocol/messages.ts';
import { fromGaps } from '../../protocol/page-batch.ts';
import { sanitizeText, SqlsyncError, toSqlsyncError } from '../errors.ts';
import { createPageHasher, SEED_BYTES } from '../pages/hash.ts';
import { HashTree } from '../pages/hash-tree.ts';
import { hostName, readMark } from '../pages/mark.ts';
import { DatabaseSnapshot } from '../pages/snapshot.ts';
import { checked } from './connection.ts';
import type { Connection } from './connection.ts';
import { outside, PageServer } from './page-server.ts';
import type { AccessCheck } from './restriction.ts';

export interface OriginOptions {
  /** The one database that may be opened; undefined on the far side, where the replica agent names it. */
  readonly path?: string | undefined;
  /** Has a say in what the replica agent names. */
  readonly access?: AccessCheck | undefined;
  readonly signal?: AbortSignal | undefined;
  /** Called with what the user should know, before the first page is read. */
  readonly onSnapshot?: (snapshot: {
    warnings: readonly string[];
    notes: readonly string[];
    pageCount: number;
  }) => void;
  readonly onProgress?: (progress: MessageOf<'progress'>) => void;
}

/** What the origin agent knows at the end of one database. */
export interface OriginResult {
  /** The replica agent's last message: after a commit, its confirmation. */
  readonly done: MessageOf<'done'>;
  readonly snapshotHeldMs: number;
  readonly walGrowthBytes: number;
}

/** Pages hashed between two looks at the connection: some 4 ms. */
const SLICE_PAGES = 2048;

/** Characters of a table's name that are told. */
const MAX_NAME_LENGTH = 500;

/** Whatever the size of the database that this one is compared with, no pass begins above it. */
const MAX_LEVEL = topLevel(MAX_PAGE_COUNT);

/** Passes over the database that may wait for their turn. */
const MAX_JOBS = 16;

/** Hashes of the first pass are sent in messages of this many. */
const HASHES_PER_ANSWER = 64;

/**
 * Serves one snapshot to a replica agent: answers its questions about hashes and pages until it is done. Keeps no
 * state about the replica. The first pass over the database runs in slices between the answers, so that a question
 * never waits for the whole pass.
 */
export async function serveOrigin(
  connection: Connection,
  open: MessageOf<'open'>,
  options: OriginOptions,
): Promise<OriginResult> {
  for (let next = open; ;) {
    const session = await OriginSession.open(connection, next, options);
    try {
      const ended = await session.run();
      if (ended.type === 'done') return { done: ended, ...session.figures };
      // The replica was changed meanwhile: its agent asks for a new snapshot and compares again.
      next = ended;
    } catch (error) {
      throw session.mayBeCommitted ? outcomeUnknown(error) : error;
    } finally {
      session.close();
    }
  }
}

/** A pass over consecutive nodes that is under way. */
interface HashJob {
  readonly id: number;
  readonly level: number;
  readonly first: number;
  readonly end: number;
  /** The node to hash next. */
  next: number;
  /** Hashes that were computed and not yet sent, from node `next` backwards. */
  pending: Uint8Array;
  pendingCount: number;
}

class OriginSession {
  readonly #connection: Connection;
  readonly #options: OriginOptions;
  readonly #snapshot: DatabaseSnapshot;
  readonly #tree: HashTree;
  readonly #pages: PageServer;
  readonly #jobs: HashJob[] = [];
  #rootSent = false;
  #figures = { snapshotHeldMs: 0, walGrowthBytes: 0 };

  static async open(
    connection: Connection,
    open: MessageOf<'open'>,
    options: OriginOptions,
  ): Promise<OriginSession> {
    const hash = nameOf(HASH_ALGORITHMS, open.hash);
    const compression = nameOf(COMPRESSION_MODES, open.compression);
    const reader = nameOf(READERS, open.reader);
    if (
      hash === undefined ||
      compression === undefined ||
      reader === undefined ||
      open.seed.length !== SEED_BYTES
    ) {
      throw new SqlsyncError('PROTOCOL', 'The other side asked for an unknown hash, compression or reader');
    }
    const path = options.path ?? options.access?.path(open.path) ?? open.path;
    const snapshot = await DatabaseSnapshot.open(path, {
      reader,
      busyTimeoutMs: open.busyTimeoutMs,
      signal: options.signal,
    });
    try {
      options.access?.opened(snapshot.path, snapshot.file.fileId);
      const restoring = checkPair(snapshot, open);
      const hasher = createPageHasher(hash, open.seed, snapshot.pageSize);
      const tree = new HashTree({
        pageCount: snapshot.pageCount,
        hasher,
        readPages: (first, count) => snapshot.readPages(first, count),
      });
      connection.state = 'serving';
      const { warnings, notes } = snapshot;
      connection.send(
        message('snapshot', {
          pageSize: snapshot.pageSize,
          pageCount: snapshot.pageCount,
          hashBytes: hasher.hashBytes,
          fileMode: snapshot.file.stats.mode & 0o777,
          wal: snapshot.wal,
          originHost: hostName(),
          originPath: snapshot.path,
          restoring,
          warnings,
          notes,
        }),
      );
      options.onSnapshot?.({ warnings, notes, pageCount: snapshot.pageCount });
      return new OriginSession(connection, options, snapshot, tree, compression);
    } catch (error) {
      snapshot.close();
      throw error;
    }
  }

  private constructor(
    connection: Connection,
    options: OriginOptions,
    snapshot: DatabaseSnapshot,
    tree: HashTree,
    compression: CompressionMode,
  ) {
    this.#connection = connection;
    this.#options = options;
    this.#snapshot = snapshot;
    this.#tree = tree;
    this.#pages = new PageServer(snapshot, tree, compression);
  }

  /** True from when the other side has all that it needs to commit. */
  get mayBeCommitted(): boolean {
    return this.#rootSent;
  }

  get figures(): { snapshotHeldMs: number; walGrowthBytes: number } {
    return this.#figures;
  }

  /** Answers until the replica agent is done with this snapshot or asks for another. */
  async run(): Promise<MessageOf<'done'> | MessageOf<'open'>> {
    for (;;) {
      const next =
        this.#connection.poll() ?? (this.#jobs.length === 0 ? await this.#connection.receive() : undefined);
      if (next === undefined) {
        this.#hashSlice();
        await nextTick();
      } else if (next.type === 'done' || next.type === 'open') {
        this.#checkEnd(next);
        return next;
      } else {
        await this.#answer(next);
      }
      await this.#connection.drained();
    }
  }

  close(): void {
    this.#snapshot.close();
  }

  /** A commit that was not preceded by a look at the root hash was not checked: do not call it a success. */
  #checkEnd(end: MessageOf<'done'> | MessageOf<'open'>): void {
    if (end.type === 'done' && end.outcome === OUTCOMES.committed && !this.#rootSent) {
      throw new SqlsyncError('PROTOCOL', 'The other side reported a commit without asking for the root hash');
    }
  }

  #answer(question: Message): void | Promise<void> {
    switch (question.type) {
      case 'getHashes':
        return this.#queueHashes(question);
      case 'getChildren':
        return this.#sendChildren(question);
      case 'getPages':
        return this.#connection.send(this.#pages.answer(question));
      case 'getOwners':
        return this.#sendOwners(question);
      case 'getRoot':
        return this.#sendRoot();
      case 'release':
        return this.#release();
      case 'progress':
        return this.#options.onProgress?.(question);
      default:
        throw new SqlsyncError('PROTOCOL', `The other side sent ${question.type} to an origin agent`);
    }
  }

  #queueHashes(question: MessageOf<'getHashes'>): void {
    const level = question.level === LEVEL_TOP ? topLevel(this.#tree.pageCount) : question.level;
    // One node of a level above would be a pass over any database, which nothing can interrupt.
    if (level > MAX_LEVEL) throw outside(`nodes of level ${level}; the highest is ${MAX_LEVEL}`);
    const nodes = this.#tree.nodeCount(level);
    const end = question.count === 0 ? nodes : question.first + question.count;
    if (end > nodes || question.first > end)
      throw outside(`nodes ${question.first} to ${end} of level ${level}, which has ${nodes}`);
    if (question.first === end) return;
    if (this.#jobs.length >= MAX_JOBS) throw outside(`more than ${MAX_JOBS} passes at once`);
    const pending = new Uint8Array(HASHES_PER_ANSWER * this.#tree.hashBytes);
    this.#jobs.push({
      id: question.id,
      level,
      first: question.first,
      end,
      next: question.first,
      pending,
      pendingCount: 0,
    });
  }

  /** Works on the oldest pass for a while, and sends its hashes when there are enough of them. */
  #hashSlice(): void {
    const job = this.#jobs[0];
    if (job === undefined) return;
    const { hashBytes } = this.#tree;
    const nodes = Math.max(1, Math.floor(SLICE_PAGES / TREE_FANOUT ** job.level));
    for (let i = 0; i < nodes && job.next < job.end && job.pendingCount < HASHES_PER_ANSWER; i++) {
      this.#tree.hashNode(job.level, job.next++, job.pending, job.pendingCount++ * hashBytes);
    }
    if (job.pendingCount < HASHES_PER_ANSWER && job.next < job.end) return;
    const first = job.next - job.pendingCount - job.first;
    const data = job.pending.slice(0, job.pendingCount * hashBytes);
    this.#connection.send(message('hashes', { id: job.id, first, data }));
    job.pendingCount = 0;
    if (job.next === job.end) this.#jobs.shift();
  }

  #sendChildren(question: MessageOf<'getChildren'>): void {
    const { level } = question;
    if (level >= MAX_LEVEL) throw outside(`children of level ${level}; the highest level is ${MAX_LEVEL}`);
    const parents = listed(question.parents, this.#tree.nodeCount(level + 1));
    const count = parents.length * TREE_FANOUT;
    if (count > MAX_HASHES_PER_MESSAGE)
      throw outside(`${count} hashes at once, at most ${MAX_HASHES_PER_MESSAGE} are allowed`);
    const { hashBytes } = this.#tree;
    const nodes = this.#tree.nodeCount(level);
    const width = Math.min(CHILD_HASH_BYTES, hashBytes);
    // Each hash is written whole, and then its tail overwritten by the next one.
    const data = new Uint8Array(count * width + hashBytes);
    let filled = 0;
    for (const parent of parents) {
      const end = Math.min((parent + 1) * TREE_FANOUT, nodes);
      for (let child = parent * TREE_FANOUT; child < end; child++) {
        this.#tree.hashNode(level, child, data, filled);
        filled += width;
      }
    }
    this.#connection.send(message('hashes', { id: question.id, first: 0, data: data.subarray(0, filled) }));
  }

  /** All b-trees have to be read for it, in one statement of SQLite. */
  async #sendOwners(question: MessageOf<'getOwners'>): Promise<void> {
    const pages = new Set(listed(question.pages, this.#snapshot.pageCount + 1));
    const owners = await this.#connection.whileBusy(() => this.#ownersOf(pages));
    const entries = [...owners].slice(0, MAX_TEXTS);
    const names = entries.map(([name]) => name.slice(0, MAX_NAME_LENGTH));
    const counts = entries.map(([, count]) => count);
    this.#connection.send(message('owners', { id: question.id, names, counts }));
  }

  /** None where the b-trees cannot be followed: a damaged database can still be compared. */
  #ownersOf(pages: ReadonlySet<number>): Map<string, number> {
    try {
      return this.#snapshot.ownersOf(pages);
    } catch {
      return new Map();
    }
  }

  #sendRoot(): void {
    const hash = this.#tree.root();
    this.#snapshot.checkUnreplaced();
    this.#figures = {
      snapshotHeldMs: Math.round(this.#snapshot.heldMs),
      walGrowthBytes: this.#snapshot.walGrowthBytes,
    };
    // No hash follows the root: a new snapshot may be asked for next, and would meet them.
    this.#jobs.length = 0;
    this.#rootSent = true;
    this.#connection.send(message('root', { hash, ...this.#figures }));
  }

  /** Ends the read transaction, so that the origin's WAL can be reset while the replica still commits. */
  #release(): void {
    this.#snapshot.close();
    this.#jobs.length = 0;
    this.#connection.state = 'released';
  }
}

/** A conversation that broke between the root hash and the confirmation of the commit says nothing about either. */
function outcomeUnknown(error: unknown): SqlsyncError {
  const failure = toSqlsyncError(error);
  return new SqlsyncError(failure.code, failure.message, {
    hint: 'The replica may have been committed before that. `sqlsync verify` tells; running it again is safe.',
    cause: error,
  });
}

/**
 * Refuses one file on both sides (SAME_FILE) and swapped arguments (SWAPPED). True where the origin is a copy of this
 * very replica and the user means to restore the one from the other.
 */
function checkPair(snapshot: DatabaseSnapshot, open: MessageOf<'open'>): boolean {
  if (open.replicaHost === hostName() && open.replicaFileId === snapshot.file.fileId) {
    throw new SqlsyncError('SAME_FILE', `Origin and replica are the same file: ${snapshot.path}`, {
      hint: 'Name two different files; links to one file count as one.',
    });
  }
  const mark = readMark(snapshot.path);
  if (mark === undefined || mark.originHost !== open.replicaHost || mark.originPath !== open.replicaPath)
    return false;
  if (open.overwrite) return true;
  throw new SqlsyncError(
    'SWAPPED',
    `The arguments look swapped: ${snapshot.path} is itself a replica, made from ${sanitizeText(open.replicaPath)}`,
    { hint: 'The origin comes first. To restore the origin from its replica, add --overwrite.' },
  );
}

function listed(gaps: readonly number[], limit: number): number[] {
  return checked(() => fromGaps(gaps, limit));
}
