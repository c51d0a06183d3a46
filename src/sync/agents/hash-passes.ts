import { MAX_PAGE_COUNT, topLevel, TREE_FANOUT } from '../../../protocol/limits.ts';
import { LEVEL_TOP } from '../../../protocol/messages.ts';
import type { MessageOf } from '../../../protocol/messages.ts';
import { message } from '../../../protocol/encode.ts';
import type { HashTree } from '../../pages/hash-tree.ts';
import type { Connection } from '../link/connection.ts';
import { requestOutOfRange } from './page-server.ts';

/** Pages to hash between two looks at the connection: some 4 ms. */
const SLICE_PAGES = 2048;

/** No pass begins above this level, however large the other database is. */
export const MAX_LEVEL: number = topLevel(MAX_PAGE_COUNT);

/** The most passes over the database that may wait. */
const MAX_JOBS = 16;

/** The first pass sends its hashes in messages of this many. */
const HASHES_PER_ANSWER = 64;

/** A pass over consecutive nodes, under way. */
interface HashJob {
  readonly id: number;
  readonly level: number;
  readonly first: number;
  readonly end: number;
  /** The node to hash next. */
  next: number;
  /** Hashes that were computed but not yet sent, backwards from node `next`. */
  pending: Uint8Array;
  pendingCount: number;
}

/**
 * The answers to `getHashes`, computed in slices, so that a question never waits for a whole pass over the database.
 */
export class HashPasses {
  readonly #connection: Connection;
  readonly #tree: HashTree;
  readonly #jobs: HashJob[] = [];

  constructor(connection: Connection, tree: HashTree) {
    this.#connection = connection;
    this.#tree = tree;
  }

  /** True if every question is answered. */
  get isEmpty(): boolean {
    return this.#jobs.length === 0;
  }

  /** Drops the unanswered questions. */
  drop(): void {
    this.#jobs.length = 0;
  }

  /** Throws PROTOCOL for nodes that do not exist. */
  add(question: MessageOf<'getHashes'>): void {
    const level = question.level === LEVEL_TOP ? topLevel(this.#tree.pageCount) : question.level;
    // One node of a higher level would be a pass over the whole database, which nothing can interrupt.
    if (level > MAX_LEVEL) throw requestOutOfRange(`nodes of level ${level}; the highest is ${MAX_LEVEL}`);
    const nodes = this.#tree.nodeCount(level);
    const end = question.count === 0 ? nodes : question.first + question.count;
    if (end > nodes || question.first > end)
      throw requestOutOfRange(`nodes ${question.first} to ${end} of level ${level}, which has ${nodes}`);
    if (question.first === end) return;
    if (this.#jobs.length >= MAX_JOBS) throw requestOutOfRange(`more than ${MAX_JOBS} passes at once`);
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

  /** Works on the oldest pass for a while, and sends hashes when enough are ready. */
  hashSlice(): void {
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
}
