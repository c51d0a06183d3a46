import { SqlsyncError } from '../../errors.ts';
import type { LocalFiles } from '../backends/backend.ts';
import type { KeptFiles } from '../backends/kept-files.ts';
import { decompressor } from './decompressor.ts';
import type { FrameBytes } from './decompressor-messages.ts';
import { decodeBody, decodeFrame, FRAME_KINDS } from '../packs/frame.ts';
import type { Frame } from '../packs/frame.ts';
import { discard } from '../packs/frame-memory.ts';
import { BASE_ID_BYTES, sameBytes } from '../packs/object-id.ts';
import type { ObjectIndex } from './object-index.ts';
import { ReadPlan } from './read-plan.ts';
import type { PackSealer, Sealer } from '../sealed/sealer.ts';
import type { KnownFrame, KnownPack } from './trust.ts';
import { damaged } from '../store-error.ts';

/**
 * Memory for decompressed frames. Small frames hold deltas and nodes: pages that are read in order need about two of
 * them from each backup that changed the pages, at most as many backups as a chain is long. Without room for these,
 * each batch of pages would decompress them again. Large frames hold whole pages and follow one another.
 */
const CACHE_BYTES = { small: 24 * 1024 * 1024, large: 3 * 1024 * 1024 };

/** The least size of a large frame. For smaller ones another thread does not pay. */
const LARGE_BYTES = 256 * 1024;

/** Bytes of bodies that may be on their way at a time. */
const MAX_LOADING_BYTES = 8 * 1024 * 1024;

/** How many large frames are read before the thread starts: it costs 30 ms and 10 MB. */
const MIN_FRAMES_READ = 8;

/** Where frames are read. */
export interface FramePlaces {
  readonly files: LocalFiles;
  readonly sealer: Sealer;
  /** Copies on this host of frames with nodes. */
  readonly kept?: KeptFiles | undefined;
}

interface LoadingFrame {
  /** The number for the decompressor. */
  readonly id: number;
  readonly rawBytes: number;
}

interface CachedFrame {
  readonly frame: Frame;
  /** Where its objects lie. */
  readonly memory: Uint8Array;
  /** True if another user holds the frame too. */
  isLent: boolean;
}

/** Frames of one size class, the least recently used first. */
interface LruFrames {
  readonly limit: number;
  readonly frames: Map<number, CachedFrame>;
  bytes: number;
}

/** Reads frames of packs by their numbers, and keeps the most recently used ones. */
export class FrameCache {
  readonly #index: ObjectIndex;
  readonly #files: LocalFiles;
  readonly #sealer: Sealer;
  #kept: KeptFiles | undefined;
  /** Packs with deltas on other bases than their indexes say. */
  readonly misindexed: Set<string> = new Set();
  /** Frames that this run took from the copies on this host, or added to them. */
  readonly #ofKept = new Set<number>();
  readonly #packs = new Map<KnownPack, PackSealer>();
  readonly #small: LruFrames = { limit: CACHE_BYTES.small, frames: new Map(), bytes: 0 };
  readonly #large: LruFrames = { limit: CACHE_BYTES.large, frames: new Map(), bytes: 0 };
  /** Frames given to the decompressor, in order. */
  readonly #loading = new Map<number, LoadingFrame>();
  #loadingBytes = 0;
  #largeFramesRead = 0;
  /** Memory of dropped frames; the current call may still use a part of it. */
  #dropped: Uint8Array[] = [];

  constructor(index: ObjectIndex, { files, sealer, kept }: FramePlaces) {
    this.#index = index;
    this.#files = files;
    this.#sealer = sealer;
    this.#kept = kept;
  }

  /**
   * Valid until the next `discardDropped`. Throws SqlsyncError STORE_DAMAGED, STORE_FILE_MISSING, STORE_UNAVAILABLE.
   */
  get(number: number): Frame {
    for (const { frames } of [this.#small, this.#large]) {
      const cached = frames.get(number);
      if (cached === undefined) continue;
      // A map keeps insertion order: the first entry is the least recently used.
      frames.delete(number);
      frames.set(number, cached);
      return cached.frame;
    }
    return this.#takeLoaded(number) ?? this.#read(number);
  }

  /** As `get`; undefined if it cannot be read. */
  getOrNothing(number: number): Frame | undefined {
    try {
      return this.get(number);
    } catch (error) {
      if (error instanceof SqlsyncError && error.code !== 'STORE_UNAVAILABLE') return undefined;
      throw error;
    }
  }

  /**
   * Removes the copies on this host that this run used or made, and reads the store from now on: a node was wrong, and a
   * frame that is not sealed was kept as it came. False if there are none.
   */
  removeKept(): boolean {
    const kept = this.#kept;
    if (kept === undefined || this.#ofKept.size === 0) return false;
    this.#kept = undefined;
    for (const number of this.#ofKept) {
      const { pack, offset, length } = this.#index.frames[number] as KnownFrame;
      kept.remove(`packs/${pack.id}`, { offset, length });
      for (const cache of [this.#small, this.#large]) this.#drop(cache, number);
    }
    this.#ofKept.clear();
    return true;
  }

  /** Another user now holds the frame too: leaves its memory to the garbage collector. */
  lend(number: number): void {
    const cached = this.#small.frames.get(number) ?? this.#large.frames.get(number);
    if (cached !== undefined) cached.isLent = true;
  }

  /**
   * Begins to decompress a large frame in another thread, and to hash its whole pages if `wantsIds`, for a later `get`,
   * which reports errors.
   */
  load(number: number, wantsIds: boolean): void {
    const rawBytes = this.#index.frames[number]?.rawBytes ?? 0;
    if (this.#large.frames.has(number) || this.#loading.has(number) || !this.#isHere(number)) return;
    if (rawBytes < LARGE_BYTES) return;
    if (this.#largeFramesRead < MIN_FRAMES_READ || !decompressor.isUp()) return;
    if (this.#loadingBytes + rawBytes > MAX_LOADING_BYTES) this.#dropOldestLoaded();
    if (this.#loadingBytes + rawBytes > MAX_LOADING_BYTES) return;
    const frame = this.#bytesOf(number);
    if (frame === undefined) return;
    const id = decompressor.start(frame, wantsIds);
    if (id === undefined) return;
    this.#loading.set(number, { id, rawBytes });
    this.#loadingBytes += rawBytes;
  }

  /** A plan of reads from another host; undefined for files of this host. */
  newPlan(): ReadPlan | undefined {
    const files = this.#files;
    if (files.plan === undefined) return undefined;
    const isKept = ({ kind, pack, offset, length }: KnownFrame): boolean =>
      kind === FRAME_KINDS.nodes && this.#kept?.has(`packs/${pack.id}`, { offset, length }) === true;
    return new ReadPlan(this.#index, (name, range) => files.plan?.(name, range), isKept);
  }

  /** Begins to read a frame from another host, for a later `get`. */
  expect(number: number): void {
    if (!this.#large.frames.has(number)) this.#isHere(number);
  }

  /** False for a frame that is still on its way from another host. */
  #isHere(number: number): boolean {
    const place = this.#index.frames[number];
    if (place === undefined || this.#files.expect === undefined || this.#small.frames.has(number))
      return true;
    const range = { offset: place.offset, length: place.length };
    return this.#files.expect(`packs/${place.pack.id}`, range, place.pack.bytes);
  }

  /** undefined if they cannot be read. The thread itself reads an unencrypted file of this host. */
  #bytesOf(number: number): FrameBytes | undefined {
    const place = this.#index.frames[number];
    const path = place === undefined ? undefined : this.#files.pathOf?.(`packs/${place.pack.id}`);
    if (place !== undefined && path !== undefined && this.#sealer.scheme === 'none')
      return { path, offset: place.offset, length: place.length };
    try {
      return { plain: this.#readSealed(number).plain };
    } catch {
      return undefined;
    }
  }

  /** Comes first in every call from outside, when no caller uses a part of a frame. */
  discardDropped(): void {
    if (this.#dropped.length === 0) return;
    for (const memory of this.#dropped) discard(memory);
    this.#dropped = [];
  }

  #read(number: number): Frame {
    const { plain, file } = this.#readSealed(number);
    const decoded = decodeFrame(plain, file);
    this.#keep(number, decoded);
    if (decoded.frame.bytes >= LARGE_BYTES) this.#largeFramesRead++;
    return decoded.frame;
  }

  /** undefined if the decompressor was not asked, or could not do it. */
  #takeLoaded(number: number): Frame | undefined {
    const loading = this.#loading.get(number);
    if (loading === undefined) return undefined;
    this.#loading.delete(number);
    this.#loadingBytes -= loading.rawBytes;
    const parts = decompressor.take(loading.id);
    const pack = this.#index.frames[number]?.pack.id;
    if (parts === undefined || pack === undefined) return undefined;
    const decoded = decodeBody(parts.header, parts.body, `packs/${pack}`, parts.ids);
    this.#keep(number, decoded);
    return decoded.frame;
  }

  /** Drops frames that were loaded but not fetched, to make room for the one wanted now. */
  #dropOldestLoaded(): void {
    const [oldest] = this.#loading;
    if (oldest === undefined || !decompressor.isDone(oldest[1].id)) return;
    const [number, { id, rawBytes }] = oldest;
    const parts = decompressor.take(id);
    if (parts !== undefined) discard(parts.body);
    this.#loading.delete(number);
    this.#loadingBytes -= rawBytes;
  }

  #readSealed(number: number): { plain: Uint8Array; file: string } {
    const place = this.#index.frames[number];
    if (place === undefined) throw new Error(`there is no frame ${number}`);
    const file = `packs/${place.pack.id}`;
    const range = { offset: place.offset, length: place.length };
    // Every run reads the nodes again; pages are many, and are read seldom.
    const kept = place.kind === FRAME_KINDS.nodes ? this.#kept : undefined;
    const known = kept?.get(file, range);
    if (kept !== undefined) this.#ofKept.add(number);
    const sealed = known ?? this.#files.getNow(file, range);
    if (sealed.length !== place.length) throw damaged(file, 'is shorter than its index says');
    // Opened first: opening may use its memory, and what cannot be opened is not kept.
    const copy = known === undefined && kept !== undefined ? sealed.slice() : undefined;
    const plain = this.#packSealer(place.pack).open(place.offset, sealed, file);
    if (copy !== undefined) kept?.add(file, [copy], range);
    if (plain !== sealed) discard(sealed);
    return { plain, file };
  }

  /** Kept: to make the key of a pack takes as long as to open a small frame. */
  #packSealer(pack: KnownPack): PackSealer {
    const known = this.#packs.get(pack);
    if (known !== undefined) return known;
    const sealer = this.#sealer.packOf(pack.salt);
    this.#packs.set(pack, sealer);
    return sealer;
  }

  #keep(number: number, { frame, memory }: Pick<CachedFrame, 'frame' | 'memory'>): void {
    const place = this.#index.frames[number];
    const { bytes, objectCount } = frame;
    if (place !== undefined && objectCount !== place.objectCount)
      throw damaged(
        `packs/${place.pack.id}`,
        'has a frame with another number of objects than its index says',
      );
    if (place !== undefined && !isAsIndexed(frame, place, this.#index)) this.misindexed.add(place.pack.id);
    const cache = bytes >= LARGE_BYTES ? this.#large : this.#small;
    while (cache.bytes + bytes > cache.limit && cache.frames.size > 0) this.#dropOldest(cache);
    cache.frames.set(number, { frame, memory, isLent: false });
    cache.bytes += bytes;
  }

  #dropOldest(cache: LruFrames): void {
    const [oldest] = cache.frames.keys();
    if (oldest !== undefined) this.#drop(cache, oldest);
  }

  #drop(cache: LruFrames, number: number): void {
    const cached = cache.frames.get(number);
    if (cached === undefined) return;
    const { frame, memory, isLent } = cached;
    cache.frames.delete(number);
    cache.bytes -= frame.bytes;
    if (!isLent) this.#dropped.push(memory);
  }
}

/** True if the bases of the deltas in a frame are those that its index says. */
function isAsIndexed(frame: Frame, { firstObject, objectCount }: KnownFrame, index: ObjectIndex): boolean {
  for (let i = 0; i < objectCount; i++) {
    const [base, indexed] = [frame.baseOf(i), index.baseOf(firstObject + i)];
    if (base === undefined && indexed === undefined) continue;
    if (base === undefined || indexed === undefined || !sameBytes(base, indexed, BASE_ID_BYTES)) return false;
  }
  return true;
}
