import type { MessageOf, Outcome } from '../../../protocol/messages.ts';
import { hostName } from '../../files/machine.ts';
import type { PageSink, SinkTarget } from '../../pages/page-source.ts';
import { PROGRAM } from '../../sync/program.ts';
import type { CopyBefore, Destination } from '../../sync/agents/destination.ts';
import { fromHex } from '../packs/object-id.ts';
import type { CachedHashes } from './hash-cache.ts';
import { PackWriter } from '../objects/pack-writer.ts';
import { encodeSnapshot } from '../files/snapshot-record.ts';
import { nextGeneration } from '../files/snapshot-order.ts';
import { SnapshotSource } from '../snapshots/snapshot-source.ts';
import type { Soundness } from '../objects/soundness.ts';
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
  /** Called when the new snapshot is durable, with its page hashes and the packs that it may need. */
  readonly onStored: (snapshot: StoreSnapshot, known: Pick<CachedHashes, 'hashes' | 'packs'>) => void;
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

  constructor(options: StoreDestinationOptions) {
    const { access, cached, snapshots } = options;
    this.path = access.backend.description;
    this.key = options.key;
    this.#options = options;
    this.#present = soundIfPresent(options.contents.reader);
    this.#stillThere = new StillThere(access, options.contents, options.loadAgain);
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
    const { access, contents, cached } = this.#options;
    const writer = new PackWriter(access.backend, access.sealer, contents.index);
    this.#warnOfOtherHosts(origin);
    this.#last = this.#ofThis(origin).at(-1);
    const parent = this.#chooseParent(target, origin);
    const time = new Date();
    const generation = await this.#generation();
    const begun = { time, generation, target, origin, parent, writer };
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
      isParentWhole: oldHashes !== undefined && allUsable(contents) && this.#knowsPacksOf(parent),
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

  /** Records a snapshot even if nothing changed. */
  async settle(sink: PageSink): Promise<Outcome> {
    await sink.commit();
    return 'committed';
  }

  #openBlocks(target: SinkTarget): BlockDeltas | undefined {
    const { blockCache } = this.#options;
    if (blockCache === undefined) return undefined;
    const cache = BlockCache.open(blockCache.names, target, blockCache.folder);
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
   * these.
   */
  async #generation(): Promise<number> {
    const { access, snapshots } = this.#options;
    const known = new Set(snapshots.map(({ id }) => id));
    const there = await namesIn(access, 'snapshots');
    const isKnown = [...there].every((id) => known.has(id));
    return nextGeneration(isKnown ? snapshots : await loadSnapshots(access, () => {}));
  }

  /** The snapshot to compare with: the newest of the same database, even if its hashes are unknown. */
  #chooseParent(target: SinkTarget, origin: MessageOf<'snapshot'>): StoreSnapshot | undefined {
    const { contents, usesParent } = this.#options;
    if (!usesParent) return undefined;
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

  async #finish(begun: Begun, { root, written, pagesChanged, hashes }: StoredPages): Promise<void> {
    const { access, contents, tags, bytesReceived, onStored } = this.#options;
    const { target, origin, time, generation, parent, writer } = begun;
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
    await this.#stillThere.afterRecord(id, { pageSize, pageCount, root });
    const { index } = contents;
    const trusted = [...index.packs.values()].filter((pack) => pack.trusted);
    onStored({ id, ...record }, { hashes, packs: [...trusted.map((pack) => pack.id), ...writer.packIds] });
  }

  /**
   * The parent's id, unless the snapshot was forgotten so long ago that no note of it is left: then it would count as
   * missing.
   */
  async #stillKnown(id: string): Promise<string | undefined> {
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
  readonly writer: PackWriter;
}
