import type { AnnouncedSnapshot } from '../request/announcements.ts';
import { setImmediate as nextTick, setTimeout as delay } from 'node:timers/promises';
import { message } from '../../../protocol/encode.ts';
import {
  CHILD_HASH_BYTES,
  MAX_HASHES_PER_MESSAGE,
  MAX_TEXTS,
  TREE_FANOUT,
} from '../../../protocol/limits.ts';
import { COMPRESSION_MODES, HASH_ALGORITHMS, nameOf, OUTCOMES, READERS } from '../../../protocol/messages.ts';
import type { CompressionMode, HashAlgorithm, Message, MessageOf } from '../../../protocol/messages.ts';
import { fromGaps } from '../../../protocol/page-batch.ts';
import { SqlsyncError, toSqlsyncError } from '../../errors.ts';
import { readSystemFileId } from '../../files/machine.ts';
import { createPageHasher, HASH_KEY_BYTES } from '../../pages/hash.ts';
import type { PageHasher } from '../../pages/hash.ts';
import { HashTree } from '../../pages/hash-tree.ts';
import { decodePeerData } from '../link/connection.ts';
import type { Connection } from '../link/connection.ts';
import { outcomeUnknown, tellsNoCommit } from '../link/connection-error.ts';
import type { FollowedOrigin } from './followed-origin.ts';
import { HashPasses, MAX_LEVEL } from './hash-passes.ts';
import { announcementOf, openSnapshot } from './origin-snapshot.ts';
import type { OriginSnapshot } from './origin-snapshot.ts';
import { PageServer, requestOutOfRange } from './page-server.ts';
import type { SentVersions } from '../quick/sent-versions.ts';
import type { OriginMemory } from '../quick/kept-tree.ts';
import { OriginTree } from '../quick/known-tree.ts';
import type { AccessCheck } from '../request/restriction.ts';
import { watchSnapshot } from '../request/snapshot-limit.ts';
import type { SnapshotLimits } from '../request/snapshot-limit.ts';

export interface OriginOptions {
  /** The only database that may be opened; undefined on the far side, where the replica agent names it. */
  readonly path?: string | undefined;
  /** The snapshot to restore, instead of a database's. */
  readonly restored?: (() => OriginSnapshot) | undefined;
  /** Decides what the replica agent may name. */
  readonly access?: AccessCheck | undefined;
  /** Keeps what the next snapshot needs, if a replica follows the origin. */
  readonly followed?: FollowedOrigin | undefined;
  /** True if the other end commits nothing. */
  readonly dryRun?: boolean | undefined;
  readonly signal?: AbortSignal | undefined;
  /** Called with what the user should know, before the first page is read. */
  readonly onSnapshot?: (snapshot: AnnouncedSnapshot & { readonly pageCount: number }) => void;
  readonly onProgress?: (progress: MessageOf<'progress'>) => void;
}

/** What the origin agent knows at the end of one database. */
export interface OriginResult {
  /** The replica agent's last message; after a commit it confirms it. */
  readonly done: MessageOf<'done'>;
  /** The number of snapshots: the first, and one for each that reached its limit. */
  readonly rounds: number;
  /** The longest that a snapshot was held, and the most that the WAL grew meanwhile. */
  readonly snapshotHeldMs: number;
  readonly walGrowthBytes: number;
}

/**
 * The pause between two rounds on an origin in rollback mode. It is longer than SQLite's busy handler sleeps between
 * two attempts (100 ms), so that waiting writers get in.
 */
const ROLLBACK_MODE_PAUSE_MS = 200;

/** UTF-8 bytes of a table's name in a message: MAX_TEXTS names of this size fit. */
const MAX_NAME_BYTES = 500;

/**
 * Serves one snapshot to a replica agent: answers its questions about hashes and pages until it is done. Keeps no state
 * about the replica. The first pass over the database runs in slices between the answers, so that a question never
 * waits for the whole pass.
 */
export async function serveOrigin(
  connection: Connection,
  open: MessageOf<'open'>,
  options: OriginOptions,
): Promise<OriginResult> {
  const longest = { snapshotHeldMs: 0, walGrowthBytes: 0 };
  let rounds = 1;
  for (let next = open; ;) {
    const session = await OriginSession.open(connection, next, options);
    try {
      const ended = await session.run();
      longest.snapshotHeldMs = Math.max(longest.snapshotHeldMs, session.figures.snapshotHeldMs);
      longest.walGrowthBytes = Math.max(longest.walGrowthBytes, session.figures.walGrowthBytes);
      if (ended.type === 'done') return { done: ended, rounds, ...longest };
      // The round is over, or the replica was changed meanwhile: its agent asks for a new snapshot and compares again.
      next = ended;
      if (!session.isOver) continue;
      rounds++;
      if (!session.wal) await pause(options.signal);
    } catch (error) {
      const mayBeCommitted = session.mayBeCommitted && options.dryRun !== true && !tellsNoCommit(error);
      throw mayBeCommitted ? outcomeUnknown(error) : error;
    } finally {
      session.close();
    }
  }
}

interface SessionParts {
  readonly hasher: PageHasher;
  readonly compression: CompressionMode;
  readonly limits: SnapshotLimits;
  /** True if the replica agent knows this very state. */
  readonly isKnown: boolean;
  readonly memory: OriginMemory | undefined;
  readonly sent: SentVersions | undefined;
}

class OriginSession {
  readonly #connection: Connection;
  readonly #options: OriginOptions;
  readonly #snapshot: OriginSnapshot;
  readonly #tree: HashTree;
  readonly #pages: PageServer;
  readonly #passes: HashPasses;
  #rootSent = false;
  #figures = { snapshotHeldMs: 0, walGrowthBytes: 0 };
  readonly #unwatch: () => void;
  #isOver = false;
  #toldOver = false;
  readonly #isKnown: boolean;
  readonly #memory: OriginMemory | undefined;

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
      open.key.length !== HASH_KEY_BYTES
    ) {
      throw new SqlsyncError('PROTOCOL', 'The other side asked for an unknown hash, compression or reader');
    }
    if (open.lookEveryMs > 0) await options.followed?.awaitChange(connection, open);
    const opened = await connection.whileBusy(() => openSnapshot(open, reader, options));
    const { snapshot, memoryOf } = opened;
    try {
      const hasher = createPageHasher(hash, open.key, snapshot.pageSize);
      const { stamp } = snapshot;
      const isKnown = stamp !== undefined && Buffer.compare(stamp, open.knownStamp) === 0;
      const { key } = open;
      const memory = isKnown
        ? undefined
        : (memoryOf?.({ hash, key }) ?? memoryFor(snapshot, open, hash, hasher));
      const tree = new HashTree({
        pageCount: snapshot.pageCount,
        hasher,
        readPages(first, count) {
          const run = snapshot.readPages(first, count);
          memory?.audit?.check(first, run);
          return run;
        },
        known: memory?.known,
      });
      connection.state = 'serving';
      const announcement = announcementOf(opened, hasher.hashBytes, memory?.notes);
      connection.send(announcement);
      options.onSnapshot?.(announcement);
      const sent = open.lookEveryMs > 0 ? options.followed?.sentUnder(key, snapshot.pageSize) : undefined;
      const parts = { hasher, compression, limits: open, isKnown, memory, sent };
      return new OriginSession(connection, options, snapshot, tree, parts);
    } catch (error) {
      snapshot.close();
      throw error;
    }
  }

  private constructor(
    connection: Connection,
    options: OriginOptions,
    snapshot: OriginSnapshot,
    tree: HashTree,
    { hasher, compression, limits, isKnown, memory, sent }: SessionParts,
  ) {
    this.#connection = connection;
    this.#options = options;
    this.#snapshot = snapshot;
    this.#tree = tree;
    this.#pages = new PageServer(snapshot, tree, hasher, { compression, sent });
    this.#passes = new HashPasses(connection, tree);
    this.#isKnown = isKnown;
    this.#memory = memory;
    this.#unwatch = watchSnapshot(snapshot, limits, {
      onOver: () => this.#end(),
      onFailure: (error) => connection.fail(toSqlsyncError(error)),
    });
  }

  /** True if the snapshot reached its limit. */
  get isOver(): boolean {
    return this.#isOver;
  }

  get wal(): boolean {
    return this.#snapshot.wal;
  }

  /** True once the other side has everything that it needs to commit. */
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
        this.#connection.poll() ?? (this.#passes.isEmpty ? await this.#connection.receive() : undefined);
      if (next === undefined) {
        this.#passes.hashSlice();
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
    this.#unwatch();
    this.#snapshot.close();
  }

  /**
   * Ends a snapshot that has reached its limit. Releases it at once, whatever the replica agent is doing. An agent that
   * has asked for nothing gets no message: it may have everything that it needs.
   */
  #end(): void {
    this.#isOver = true;
    if (!this.#rootSent) this.#measure();
    this.#snapshot.close();
    this.#connection.state = 'over';
    if (!this.#passes.isEmpty) this.#sayOver();
    this.#passes.drop();
  }

  #sayOver(): void {
    if (this.#toldOver) return;
    this.#toldOver = true;
    this.#connection.send(message('roundOver', this.#figures));
  }

  #measure(): void {
    this.#figures = {
      snapshotHeldMs: Math.round(this.#snapshot.heldMs),
      walGrowthBytes: this.#snapshot.walGrowthBytes,
    };
  }

  /** A replica agent that did not ask for the root hash did not check its commit: do not report success. */
  #checkEnd(end: MessageOf<'done'> | MessageOf<'open'>): void {
    if (end.type === 'done' && end.outcome === OUTCOMES.committed && !this.#rootSent) {
      throw new SqlsyncError('PROTOCOL', 'The other side reported a commit without asking for the root hash');
    }
  }

  #answer(question: Message): void | Promise<void> {
    if (this.#isOver && question.type.startsWith('get')) return this.#sayOver();
    switch (question.type) {
      case 'getHashes':
        // The replica agent asked before it could know that it needs no answer.
        return this.#isKnown ? undefined : this.#passes.add(question);
      case 'getChildren':
        return this.#sendChildren(question);
      case 'getPages':
        return this.#sendPages(question);
      case 'getOwners':
        return this.#sendOwners(question);
      case 'getRoot':
        return this.#sendRoot();
      case 'release':
        return this.#release();
      case 'wake':
        return undefined; // it crossed the snapshot
      case 'progress':
        return this.#options.onProgress?.(question);
      default:
        throw new SqlsyncError('PROTOCOL', `The other side sent ${question.type} to an origin agent`);
    }
  }

  #sendPages(question: MessageOf<'getPages'>): void {
    const { pages, onSent } = this.#pages.answer(question);
    this.#connection.send(pages, onSent);
  }

  #sendChildren(question: MessageOf<'getChildren'>): void {
    const { level } = question;
    if (level >= MAX_LEVEL)
      throw requestOutOfRange(`children of level ${level}; the highest level is ${MAX_LEVEL}`);
    const parents = listed(question.parents, this.#tree.nodeCount(level + 1));
    const count = parents.length * TREE_FANOUT;
    if (count > MAX_HASHES_PER_MESSAGE)
      throw requestOutOfRange(`${count} hashes at once, at most ${MAX_HASHES_PER_MESSAGE} are allowed`);
    const { hashBytes } = this.#tree;
    const nodes = this.#tree.nodeCount(level);
    const width = Math.min(CHILD_HASH_BYTES, hashBytes);
    // Writes each hash whole; the next one overwrites its tail.
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

  /** SQLite has to read all b-trees for it, in one statement. */
  async #sendOwners(question: MessageOf<'getOwners'>): Promise<void> {
    const pages = new Set(listed(question.pages, this.#snapshot.pageCount + 1));
    const owners = await this.#connection.whileBusy(() => this.#ownersOf(pages));
    const entries = [...owners].sort(([, a], [, b]) => b - a).slice(0, MAX_TEXTS);
    const names = entries.map(([name]) => startOf(name, MAX_NAME_BYTES));
    const counts = entries.map(([, count]) => count);
    this.#connection.send(message('owners', { id: question.id, names, counts }));
  }

  /** Empty if the b-trees cannot be followed: a damaged database can still be compared. */
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
    this.#memory?.checkAudit();
    this.#measure();
    // No hash may follow the root: the peer may ask for a new snapshot next, and would receive them there.
    this.#passes.drop();
    this.#rootSent = true;
    this.#connection.send(message('root', { hash, ...this.#figures }));
  }

  /** Ends the read transaction, so that the origin's WAL can be reset while the replica still commits. */
  #release(): void {
    this.#unwatch();
    this.#snapshot.close();
    this.#passes.drop();
    this.#connection.state = 'released';
    // The replica commits meanwhile.
    const nodes = this.#rootSent ? this.#tree.knownNodes() : undefined;
    if (nodes !== undefined) this.#memory?.remember(nodes);
  }
}

/**
 * What is known of the origin for a replica that exists. A new copy and a verification use a new key, and a backup
 * would never hash all pages again.
 */
function memoryFor(
  snapshot: OriginSnapshot,
  { key, replicaFileId }: MessageOf<'open'>,
  hash: HashAlgorithm,
  hasher: PageHasher,
): OriginMemory | undefined {
  return readSystemFileId(replicaFileId).exists ? OriginTree.of(snapshot, hash, key, hasher) : undefined;
}

async function pause(signal: AbortSignal | undefined): Promise<void> {
  // The next look at the connection reports an interruption.
  await delay(ROLLBACK_MODE_PAUSE_MS, undefined, signal === undefined ? {} : { signal }).catch(() => {});
}

/** The longest start of `text` that fits into this many bytes of UTF-8. */
function startOf(text: string, maxBytes: number): string {
  const bytes = Buffer.from(text);
  // With `stream` the decoder holds back an incomplete last character.
  return bytes.length <= maxBytes
    ? text
    : new TextDecoder().decode(bytes.subarray(0, maxBytes), { stream: true });
}

function listed(gaps: readonly number[], limit: number): number[] {
  return decodePeerData(() => fromGaps(gaps, limit));
}
