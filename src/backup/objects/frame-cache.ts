import { SqlsyncError } from '../../errors.ts';
import type { Backend } from '../backends/backend.ts';
import { decompressor } from './decompressor.ts';
import type { FrameBytes } from './decompressor-messages.ts';
import { decodeBody, decodeFrame } from '../packs/frame.ts';
import type { Frame } from '../packs/frame.ts';
import { discard } from '../packs/frame-memory.ts';
import type { ObjectIndex } from './object-index.ts';
import type { Sealer } from '../packs/seal.ts';
import { damaged } from '../store-error.ts';

/**
 * Memory for decompressed frames. Of small ones, of deltas and nodes, pages that are read in order need two or so of
 * every backup since which they have changed at most as often as a chain is long; without room for these each batch of
 * pages would decompress them anew. Large ones, of whole pages, follow one another.
 */
const CACHE_BYTES = { small: 24 * 1024 * 1024, large: 3 * 1024 * 1024 };

/** A large frame has at least so many bytes. For smaller ones another thread does not pay. */
const LARGE_BYTES = 256 * 1024;

/** Bytes of bodies that may be on their way at a time. */
const MAX_LOADING_BYTES = 8 * 1024 * 1024;

/** So many large frames are read before the thread is started: it costs 30 ms and 10 MB. */
const MIN_FRAMES_READ = 8;

interface LoadingFrame {
  /** What to ask the decompressor for. */
  readonly id: number;
  readonly rawBytes: number;
}

interface CachedFrame {
  readonly frame: Frame;
  /** Where its objects lie. */
  readonly memory: Uint8Array;
  /** Somebody else has it too. */
  isLent: boolean;
}

/** Frames of one kind of size, the one that was used least lately first. */
interface FrameShelf {
  readonly limit: number;
  readonly frames: Map<number, CachedFrame>;
  bytes: number;
}

/** Reads frames of packs by their numbers, and keeps those that were used last. */
export class FrameCache {
  readonly #index: ObjectIndex;
  readonly #backend: Backend;
  readonly #sealer: Sealer;
  readonly #small: FrameShelf = { limit: CACHE_BYTES.small, frames: new Map(), bytes: 0 };
  readonly #large: FrameShelf = { limit: CACHE_BYTES.large, frames: new Map(), bytes: 0 };
  /** Frames that the decompressor has, in the order in which it got them. */
  readonly #loading = new Map<number, LoadingFrame>();
  #loadingBytes = 0;
  #largeFramesRead = 0;
  /** Memory of frames that were dropped, of which the call that is under way may still have a part in hand. */
  #dropped: Uint8Array[] = [];

  constructor(index: ObjectIndex, backend: Backend, sealer: Sealer) {
    this.#index = index;
    this.#backend = backend;
    this.#sealer = sealer;
  }

  /**
   * Valid until the next `discardDropped`. Throws SqlsyncError STORE_DAMAGED, STORE_FILE_MISSING, STORE_UNAVAILABLE.
   */
  get(number: number): Frame {
    for (const { frames } of [this.#small, this.#large]) {
      const cached = frames.get(number);
      if (cached === undefined) continue;
      // A map keeps the order in which its entries were set: the first is the one that was used least lately.
      frames.delete(number);
      frames.set(number, cached);
      return cached.frame;
    }
    return this.#takeLoaded(number) ?? this.#read(number);
  }

  /** The same; undefined if it cannot be read. */
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
    const cached = this.#small.frames.get(number) ?? this.#large.frames.get(number);
    if (cached !== undefined) cached.isLent = true;
  }

  /** Begins to decompress a large frame in another thread, for `get`, which tells of what is wrong with it. */
  load(number: number): void {
    const rawBytes = this.#index.frames[number]?.rawBytes ?? 0;
    if (rawBytes < LARGE_BYTES || this.#large.frames.has(number) || this.#loading.has(number)) return;
    if (this.#largeFramesRead < MIN_FRAMES_READ || !decompressor.isUp()) return;
    if (this.#loadingBytes + rawBytes > MAX_LOADING_BYTES) this.#dropOldestLoaded();
    if (this.#loadingBytes + rawBytes > MAX_LOADING_BYTES) return;
    const frame = this.#bytesOf(number);
    if (frame === undefined) return;
    const id = decompressor.start(frame);
    if (id === undefined) return;
    this.#loading.set(number, { id, rawBytes });
    this.#loadingBytes += rawBytes;
  }

  /** undefined if they cannot be read. What is a file here, and not encrypted, the thread reads itself. */
  #bytesOf(number: number): FrameBytes | undefined {
    const place = this.#index.frames[number];
    const path = place === undefined ? undefined : this.#backend.pathOf?.(`packs/${place.pack.id}`);
    if (place !== undefined && path !== undefined && this.#sealer.scheme === 'none')
      return { path, offset: place.offset, length: place.length };
    try {
      return { plain: this.#readSealed(number).plain };
    } catch {
      return undefined;
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
    const decoded = decodeBody(parts.header, parts.body, `packs/${pack}`);
    this.#keep(number, decoded);
    return decoded.frame;
  }

  /** What nobody came for makes room for what is wanted now. */
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
    const shelf = bytes >= LARGE_BYTES ? this.#large : this.#small;
    while (shelf.bytes + bytes > shelf.limit && shelf.frames.size > 0) this.#dropOldest(shelf);
    shelf.frames.set(number, { frame, memory, isLent: false });
    shelf.bytes += bytes;
  }

  #dropOldest(shelf: FrameShelf): void {
    const [oldest] = shelf.frames;
    if (oldest === undefined) return;
    const [number, { frame, memory, isLent }] = oldest;
    shelf.frames.delete(number);
    shelf.bytes -= frame.bytes;
    if (!isLent) this.#dropped.push(memory);
  }
}
