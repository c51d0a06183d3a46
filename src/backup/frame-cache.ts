import { SqlsyncError } from '../errors.ts';
import type { Backend } from './backend.ts';
import { decompressor } from './decompressor.ts';
import { decodeBody, decodeFrame, takeApart } from './frame.ts';
import type { Frame } from './frame.ts';
import { discard } from './frame-memory.ts';
import type { ObjectIndex } from './object-index.ts';
import type { Sealer } from './seal.ts';
import { damaged } from './store-error.ts';

/** Memory for decompressed frames: pages that are read in order need some frames of every backup that changed them. */
const CACHE_BYTES = 12 * 1024 * 1024;

/** Frames of at least this size are decompressed in another thread; for smaller ones it does not pay. */
const MIN_THREAD_BYTES = 256 * 1024;

/** Bytes of bodies that may be on their way at a time. */
const MAX_LOADING_BYTES = 8 * 1024 * 1024;

/** So many large frames are read before the thread is started: it costs 30 ms and 10 MB. */
const MIN_FRAMES_READ = 8;

interface LoadingFrame {
  /** What to ask the decompressor for. */
  readonly id: number;
  readonly header: Uint8Array;
  readonly rawBytes: number;
}

interface CachedFrame {
  readonly frame: Frame;
  /** Where its objects lie. */
  readonly memory: Uint8Array;
  readonly bytes: number;
  /** Somebody else has it too. */
  isLent: boolean;
}

/** Reads frames of packs by their numbers, and keeps those that were used last. */
export class FrameCache {
  readonly #index: ObjectIndex;
  readonly #backend: Backend;
  readonly #sealer: Sealer;
  readonly #cache = new Map<number, CachedFrame>();
  /** Frames that the decompressor has, in the order in which it got them. */
  readonly #loading = new Map<number, LoadingFrame>();
  #loadingBytes = 0;
  #largeFramesRead = 0;
  #cachedBytes = 0;
  /** Memory of frames that were dropped, of which the call that is under way may still have a part in hand. */
  #dropped: Uint8Array[] = [];

  constructor(index: ObjectIndex, backend: Backend, sealer: Sealer) {
    this.#index = index;
    this.#backend = backend;
    this.#sealer = sealer;
  }

  /** Valid until the next `discardDropped`. Throws SqlsyncError STORE_DAMAGED, STORE_FILE_MISSING, STORE_UNAVAILABLE. */
  get(number: number): Frame {
    const cached = this.#cache.get(number);
    if (cached !== undefined) {
      // A map keeps the order in which its entries were set: the first is the one that was used least lately.
      this.#cache.delete(number);
      this.#cache.set(number, cached);
      return cached.frame;
    }
    return this.#takeLoaded(number) ?? this.#read(number);
  }

  /** The same; undefined where it cannot be read. */
  getOrNothing(number: number): Frame | undefined {
    try {
      return this.get(number);
    } catch (error) {
      if (error instanceof SqlsyncError && error.code !== 'STORE_UNAVAILABLE') return undefined;
      throw error;
    }
  }

  /** From now on somebody else has the frame too: its memory is left to the garbage collector. */
  lend(number: number): void {
    (this.#cache.get(number) as CachedFrame).isLent = true;
  }

  /** Begins to decompress a large frame in another thread, for `get`, which tells of what is wrong with it. */
  load(number: number): void {
    const rawBytes = this.#index.frames[number]?.rawBytes ?? 0;
    if (rawBytes < MIN_THREAD_BYTES || this.#cache.has(number) || this.#loading.has(number)) return;
    if (this.#largeFramesRead < MIN_FRAMES_READ) return;
    if (this.#loadingBytes + rawBytes > MAX_LOADING_BYTES) this.#keepOldestLoaded();
    if (this.#loadingBytes + rawBytes > MAX_LOADING_BYTES) return;
    try {
      const { plain, file } = this.#readSealed(number);
      const { header, packed } = takeApart(plain, file);
      if (packed === undefined) return;
      this.#loading.set(number, { id: decompressor.start(packed, rawBytes), header, rawBytes });
      this.#loadingBytes += rawBytes;
    } catch {
      // See above.
    }
  }

  /** Comes first in every call from outside, when none has a part of a frame in hand. */
  discardDropped(): void {
    if (this.#dropped.length === 0) return;
    for (const memory of this.#dropped) discard(memory);
    this.#dropped = [];
  }

  #read(number: number): Frame {
    const { plain, file } = this.#readSealed(number);
    const decoded = decodeFrame(plain, file);
    this.#keep(number, decoded);
    if (decoded.memory.length >= MIN_THREAD_BYTES) this.#largeFramesRead++;
    return decoded.frame;
  }

  /** undefined where the decompressor was not asked, or could not do it. */
  #takeLoaded(number: number): Frame | undefined {
    const loading = this.#loading.get(number);
    if (loading === undefined) return undefined;
    this.#loading.delete(number);
    this.#loadingBytes -= loading.rawBytes;
    const memory = decompressor.take(loading.id);
    const pack = this.#index.frames[number]?.pack.id;
    if (memory === undefined || pack === undefined) return undefined;
    const decoded = decodeBody(loading.header, memory, `packs/${pack}`);
    this.#keep(number, decoded);
    return decoded.frame;
  }

  /** What was not asked for in time makes room for what is asked for now. */
  #keepOldestLoaded(): void {
    const [oldest] = this.#loading;
    if (oldest === undefined || !decompressor.isDone(oldest[1].id)) return;
    this.#takeLoaded(oldest[0]);
  }

  #readSealed(number: number): { plain: Uint8Array; file: string } {
    const place = this.#index.frames[number];
    if (place === undefined) throw new Error(`there is no frame ${number}`);
    const file = `packs/${place.pack.id}`;
    const sealed = this.#backend.getNow(file, { offset: place.offset, length: place.length });
    if (sealed.length !== place.length) throw damaged(file, 'is shorter than its index says');
    return { plain: this.#sealer.open('frame', sealed), file };
  }

  #keep(number: number, { frame, memory }: Pick<CachedFrame, 'frame' | 'memory'>): void {
    const place = this.#index.frames[number];
    const { bytes, objectCount } = frame;
    if (place !== undefined && objectCount !== place.objectCount)
      throw damaged(
        `packs/${place.pack.id}`,
        'has a frame with another number of objects than its index says',
      );
    while (this.#cachedBytes + bytes > CACHE_BYTES && this.#cache.size > 0) this.#dropOldest();
    this.#cache.set(number, { frame, memory, bytes, isLent: false });
    this.#cachedBytes += bytes;
  }

  #dropOldest(): void {
    const [oldest] = this.#cache;
    if (oldest === undefined) return;
    this.#cache.delete(oldest[0]);
    this.#cachedBytes -= oldest[1].bytes;
    if (!oldest[1].isLent) this.#dropped.push(oldest[1].memory);
  }
}
