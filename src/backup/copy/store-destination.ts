import type { MessageOf, Outcome } from '../../../protocol/messages.ts';
import { SqlsyncError } from '../../errors.ts';
import { hostName } from '../../files/machine.ts';
import type { PageSink, SinkTarget } from '../../pages/page-source.ts';
import { PROGRAM } from '../../sync/program.ts';
import type { CopyBefore, Destination } from '../../sync/agents/destination.ts';
import { fromHex } from '../packs/object-id.ts';
import type { CachedHashes } from './hash-cache.ts';
import { PackWriter } from '../objects/pack-writer.ts';
import { encodeSnapshot } from '../files/snapshot-record.ts';
import { rememberNew } from '../files/older-state.ts';
import { nextGeneration } from '../files/snapshot-order.ts';
import { SnapshotSource } from '../snapshots/snapshot-source.ts';
import type { Soundness } from '../objects/soundness.ts';
import { lookForSnapshot } from '../files/recall.ts';
import type { RememberedContents } from '../files/recall.ts';
import { loadSnapshots, namesIn, putRecord } from '../files/store-files.ts';
import type { StoreAccess, StoreContents } from '../files/store-files.ts';
import { BlockCache } from './block-cache.ts';
import { BlockDeltas } from './block-deltas.ts';
import { StillThere, soundIfPresent } from './still-there.ts';
import { StoreSink } from './store-sink.ts';
import type { StoredPages } from './store-sink.ts';
import type { StoreSnapshot } from '../types.ts';
import { allUsable, firstUnusable } from '../snapshots/usable-tree.ts';

export interface StoreDestinationOptions {
  readonly access: StoreAccess;
  readonly contents: StoreContents;
  /** Loads the contents again, as they are now. */
  readonly loadAgain: () => Promise<StoreContents>;
  readonly snapshots: readonly StoreSnapshot[];
  /** The id of the only one of `snapshots` if they and `contents` are what an earlier run left. */
  readonly recalled: string | undefined;
  /** True to make no snapshot that has the same pages as its parent. */
  readonly skipsUnchanged: boolean;
  /** Hashes of this origin's newest snapshot; undefined if they are unknown or must not be used. */
  readonly cached: CachedHashes | undefined;
  /** Identifies the cache of block hashes; undefined for none. */
  readonly blockCache: BlockCachePlace | undefined;
  /** False to fetch everything, and to write everything that is not in the store. */
  readonly usesParent: boolean;
  readonly key: Uint8Array;
  readonly tags: readonly string[];
  /** Recorded instead of the origin's host name. */
  readonly host: string | undefined;
  /** Bytes received from the origin so far. */
  readonly bytesReceived: () => number;
  readonly onWarning: (text: string) => void;
  /** Called before each pack is put. */
  readonly beforePack: () => void;
  /** Called when the snapshot is durable. */
  readonly onStored: (stored: StoredSnapshot) => void;
}

/** A snapshot that is in the store, and what the next backup can know of it. */
export interface StoredSnapshot {
  readonly snapshot: StoreSnapshot;
  /** False if it was there already, with the same pages. */
  readonly isNew: boolean;
  /** The hashes of its pages, and the packs that it may need. */
  readonly hashes: Uint8Array;
  /** Page 1; undefined if it did not come. */
  readonly firstPage?: Uint8Array | undefined;
  readonly packs: readonly string[];
  /** What names all that it needs; undefined if that is not certain. */
  readonly contents: Pick<RememberedContents, 'indexes' | 'untrusted'> | undefined;
}

/** Where the cache of block hashes of one database in one store is. */
export interface BlockCachePlace {
  readonly names: readonly string[];
  /** By default in the user's cache folder. */
  readonly folder?: string | undefined;
  /** False to rely on nothing that is there. */
  readonly looksUp: boolean;
}

/** A new snapshot in a store, as the destination of a copy. */
export class StoreDestination implements Destination {
  readonly path: string;
  readonly fileId = '';
  readonly isNew = true;
  readonly hasOldPages: boolean;
  readonly key: Uint8Array;
  readonly warnings: readonly string[] = [];
  readonly #options: StoreDestinationOptions;
  readonly #startedAtMs: number = performance.now();
  readonly #present: Soundness;
  readonly #stillThere: StillThere;
  #last: StoreSnapshot | undefined;
  #parent: StoreSnapshot | undefined;
  #writer: PackWriter | undefined;

  constructor(options: StoreDestinationOptions) {
    const { access, cached, snapshots, recalled } = options;
    this.path = access.backend.description;
    this.key = options.key;
    this.#options = options;
    this.#present = soundIfPresent(options.contents.reader);
    this.#stillThere = new StillThere(access, options.contents, options.loadAgain, recalled);
    this.hasOldPages = cached !== undefined && snapshots.some(({ id }) => id === cached.snapshot);
  }

  /** The newest snapshot of this database, even if the backup does not compare with it. */
  copyBefore(_: PageSink, { pageSize }: SinkTarget): CopyBefore | undefined {
    const last = this.#last;
    if (last === undefined) return undefined;
    const pages = Math.floor((last.pageCount * last.pageSize) / pageSize);
    return { name: `its snapshot ${last.id.slice(0, 8)}`, pages };
  }

  async openSink(target: SinkTarget, origin: MessageOf<'snapshot'>): Promise<PageSink> {
    const { access, contents, cached, beforePack } = this.#options;
    const writer = (this.#writer = new PackWriter({ ...access, beforePack }, contents.index));
    this.#warnOfOtherHosts(origin);
    this.#last = this.#ofThis(origin).at(-1);
    const parent = (this.#parent = this.#chooseParent(target, origin));
    const time = new Date();
    const generation = await this.#generation();
    const begun = { time, generation, target, origin, parent };
    const oldHashes = parent !== undefined && parent.id === cached?.snapshot ? cached.hashes : undefined;
    const sink = new StoreSink({
      target,
      reader: contents.reader,
      writer,
      // If hashes are made of its pages, those must be right.
      parent:
        parent === undefined
          ? undefined
          : new SnapshotSource(contents.reader, parent, oldHashes === undefined),
      oldHashes,
      isParentWhole:
        this.#options.recalled !== undefined ||
        (oldHashes !== undefined && allUsable(contents) && this.#knowsPacksOf(parent)),
      blocks: this.#openBlocks(target),
      beforeIndex: (root, packs) =>
        this.#stillThere.beforeIndex(
          [{ pageSize: target.pageSize, pageCount: target.pageCount, root }],
          packs,
        ),
      finish: (stored) => this.#finish(begun, stored),
    });
    return sink;
  }

  /** Records a snapshot even if nothing changed, unless the user wants none then. */
  async settle(sink: PageSink): Promise<Outcome> {
    const { access, skipsUnchanged, recalled } = this.#options;
    const parent = this.#parent;
    const isSame = parent !== undefined && sink instanceof StoreSink && sink.isUnchanged;
    if (isSame && skipsUnchanged && (await lookForSnapshot(access, parent.id)) === 'there') {
      // Without lists nothing else has looked for an older state of the store.
      if (recalled !== undefined)
        await rememberNew(access, { id: parent.id, generation: parent.generation ?? 0 }, parent.id);
      this.#report(parent, sink.hashes, false);
      return 'unchanged';
    }
    await sink.commit();
    return 'committed';
  }

  #openBlocks(target: SinkTarget): BlockDeltas | undefined {
    const { blockCache } = this.#options;
    if (blockCache === undefined) return undefined;
    const cache = BlockCache.open(blockCache.names, target, this.#options.access.sealer, blockCache.folder);
    return cache && new BlockDeltas(cache, blockCache.looksUp);
  }

  /**
   * Warns that a container has another host name each time: its snapshots are not compared, kept or forgotten together
   * with the earlier ones.
   */
  #warnOfOtherHosts({ originHost, originPath }: MessageOf<'snapshot'>): void {
    const { host, snapshots, onWarning } = this.#options;
    const ofPath = snapshots.filter(({ path }) => path === originPath);
    if (host !== undefined || ofPath.length === 0 || ofPath.some((each) => each.host === originHost)) return;
    const hosts = [...new Set(ofPath.map((each) => each.host))];
    const named = hosts.slice(-3).join(', ');
    const from =
      hosts.length === 1 ? `the host ${named}` : `${hosts.length} other hosts, the last of them ${named}`;
    onWarning(
      `This is the first snapshot of ${originPath} from the host ${originHost}; the store has ${ofPath.length} of that path from ${from}. If it is the same database and only the name of its host changes (as in containers), back it up with --host NAME: sqlsync does not compare, forget or restore snapshots of different hosts together. \`sqlsync forget STORE --group-by path\` forgets those that are there`,
    );
  }

  /**
   * Uses the records that are in the store after the origin took its snapshot: that snapshot is newer than all of
   * these. With the parent alone, the clock of the place puts it behind the others.
   */
  async #generation(): Promise<number> {
    const { access, snapshots, recalled } = this.#options;
    const nowMs = access.backend.now?.();
    if (recalled !== undefined) return nextGeneration(snapshots, nowMs);
    const known = new Set(snapshots.map(({ id }) => id));
    const there = await namesIn(access, 'snapshots');
    const isKnown = [...there].every((id) => known.has(id));
    return nextGeneration(isKnown ? snapshots : await loadSnapshots(access, () => {}), nowMs);
  }

  /** The snapshot to compare with: the newest of the same database, even if its hashes are unknown. */
  #chooseParent(target: SinkTarget, origin: MessageOf<'snapshot'>): StoreSnapshot | undefined {
    const { contents, usesParent, recalled } = this.#options;
    if (!usesParent) return undefined;
    if (recalled !== undefined) {
      const known = this.#ofThis(origin).at(-1);
      if (known?.pageSize === target.pageSize) return known;
      throw new OutdatedMemoryError();
    }
    // Another backup may have put a snapshot since the indexes were loaded.
    const parent = this.#ofThis(origin).findLast(
      ({ root }) => root !== undefined && this.#present.has(fromHex(root)),
    );
    if (parent?.pageSize !== target.pageSize) return undefined;
    const isUsable =
      (allUsable(contents) && this.#knowsPacksOf(parent)) ||
      firstUnusable(contents.reader, parent) === undefined;
    return isUsable ? parent : undefined;
  }

  /**
   * True if every pack that the parent may need is still there: one may be lost with its index, or given up by a
   * repair. A backup does not read an unchanged page, so it would not notice that one is gone. If hashes are unknown,
   * all pages are read anyway.
   */
  #knowsPacksOf(parent: StoreSnapshot | undefined): boolean {
    const { cached, contents } = this.#options;
    if (cached === undefined || cached.snapshot !== parent?.id) return true;
    return cached.packs.every((pack) => contents.index.packs.has(pack));
  }

  async #finish(
    begun: Begun,
    { root, written, pagesChanged, hashes, firstPage }: StoredPages,
  ): Promise<void> {
    const { access, tags, bytesReceived } = this.#options;
    const { target, origin, time, generation, parent } = begun;
    const { pageSize, pageCount } = target;
    const record = {
      time,
      host: this.#hostOf(origin),
      path: origin.originPath,
      tags,
      pageSize,
      pageCount,
      fileMode: target.fileMode,
      fileOwner: target.fileOwner === undefined ? undefined : { host: hostName(), ...target.fileOwner },
      root,
      parent: parent === undefined ? undefined : await this.#stillKnown(parent.id),
      generation,
      program: PROGRAM,
      statistics: {
        pagesChanged,
        pagesAdded: written.pages,
        nodesAdded: written.nodes,
        bytesAdded: written.bytes,
        bytesReceived: bytesReceived(),
        durationMs: Math.round(performance.now() - this.#startedAtMs),
      },
    };
    const id = await putRecord(access, 'snapshots', 'snapshot', encodeSnapshot(record));
    await this.#stillThere.afterRecord(id, { pageSize, pageCount, root }, record.parent);
    await rememberNew(access, { id, generation }, record.parent);
    this.#report({ id, ...record }, hashes, true, firstPage);
  }

  #report(snapshot: StoreSnapshot, hashes: Uint8Array, isNew: boolean, firstPage?: Uint8Array): void {
    const { index, indexFiles } = this.#options.contents;
    const { packIds = [], indexNames = [] } = this.#writer ?? {};
    const known = [...index.packs.values()];
    const idsOf = (packs: typeof known): string[] => packs.map(({ id }) => id);
    const packs = [...idsOf(known.filter(({ trusted }) => trusted)), ...packIds];
    const untrusted = idsOf(known.filter(({ trusted }) => !trusted));
    const contents = this.#stillThere.hasLookedAgain
      ? undefined
      : { indexes: [...indexFiles.keys(), ...indexNames], untrusted };
    this.#options.onStored({ snapshot, isNew, hashes, firstPage, packs, contents });
  }

  /**
   * The parent's id, unless the snapshot was forgotten so long ago that no note of it is left: then it would count as
   * missing.
   */
  async #stillKnown(id: string): Promise<string | undefined> {
    if (this.#options.recalled !== undefined && !this.#stillThere.hasLookedAgain) return id;
    // In this order: a forget puts its note before it deletes.
    for (const folder of ['snapshots', 'forgotten'] as const)
      if ((await namesIn(this.#options.access, folder)).has(id)) return id;
    return undefined;
  }

  /** Snapshots of the same database, in order. */
  #ofThis(origin: MessageOf<'snapshot'>): StoreSnapshot[] {
    const host = this.#hostOf(origin);
    return this.#options.snapshots.filter((each) => each.host === host && each.path === origin.originPath);
  }

  #hostOf(origin: MessageOf<'snapshot'>): string {
    return this.#options.host ?? origin.originHost;
  }
}

/** A snapshot that is being stored. */
interface Begun {
  readonly time: Date;
  readonly generation: number;
  readonly target: SinkTarget;
  readonly origin: MessageOf<'snapshot'>;
  readonly parent: StoreSnapshot | undefined;
}

/** A run that began with what an earlier one left has to begin again with the lists of the store. */
export class OutdatedMemoryError extends SqlsyncError {
  constructor(cause?: unknown) {
    super('INTERNAL', 'The store is not as this host remembers it', { cause });
  }
}
