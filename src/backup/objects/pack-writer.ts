import type { Backend } from '../backends/backend.ts';
import type { KeptFiles } from '../backends/kept-files.ts';
import { isOutOfSpace } from '../backends/out-of-space.ts';
import { encodeNodeFrame, encodePageFrame, FRAME_KINDS, MAX_FRAME_BYTES } from '../packs/frame.ts';
import { Arena, discard } from '../packs/frame-memory.ts';
import { encodeIndex, FULL_PACK_OBJECTS, splitForIndexes } from '../packs/index-file.ts';
import type { FramePlace, IndexedPack } from '../packs/index-file.ts';
import { BASE_ID_BYTES, ID_BYTES, idOf, idOfPieces, toHex } from '../packs/object-id.ts';
import type { NodeObject } from '../packs/node-frame.ts';
import type { ObjectIndex } from './object-index.ts';
import type { PageObject } from '../packs/page-frame.ts';
import type { PackSealer, Sealer } from '../sealed/sealer.ts';

/** A pack of at least this many bytes is put. */
const PACK_BYTES = 16 * 1024 * 1024;

/**
 * Bytes of a body after which a frame is closed. Whole pages: larger frames compress no better; deltas: they are read
 * one by one.
 */
const FRAME_BYTES = { whole: 1024 * 1024, deltas: 128 * 1024, nodes: 64 * 1024 };

/** After this many packs an index is put without waiting for the end, so that a killed run's work can be used. */
const PACKS_PER_INDEX = 64;

/** Bytes that may wait for compression, and packs that may be on their way to a backend that takes several at once. */
const MAX_WAITING_BYTES = 4 * 1024 * 1024;
const MAX_PUTS = 4;

/** Objects that will be one frame. */
interface Batch<T> {
  readonly objects: T[];
  readonly numbers: number[];
  bytes: number;
}

/** Room beyond a frame for the bytes of one call. */
const ARENA_SPARE_BYTES = 128 * 1024;

/** A pack that is being filled. */
interface OpenPack {
  readonly sealer: PackSealer;
  readonly pieces: Uint8Array[];
  readonly frames: FramePlace[];
  readonly numbers: number[];
  bytes: number;
}

/** Where packs and indexes are put. */
export interface PackPlace {
  readonly backend: Backend;
  readonly sealer: Sealer;
  /** Keeps copies of indexes, and of frames with nodes, on this host. */
  readonly kept?: KeptFiles | undefined;
  /** Called before each pack is put. */
  readonly beforePack?: (() => void) | undefined;
}

export interface Written {
  readonly packs: number;
  readonly pages: number;
  readonly nodes: number;
  /** Bytes of packs and indexes. */
  readonly bytes: number;
}

/**
 * Collects new objects into frames and frames into packs; puts the packs, then an index of them. Other threads compress
 * the frames. The index knows an object as soon as it was added.
 */
export class PackWriter {
  readonly #place: PackPlace;
  readonly #index: ObjectIndex;
  #whole = newBatch<PageObject>();
  #deltas = newBatch<PageObject>();
  #nodes = newBatch<NodeObject>();
  /** The pages of the two batches. */
  readonly #wholeBytes = new Arena(FRAME_BYTES.whole + ARENA_SPARE_BYTES);
  readonly #deltaBytes = new Arena(FRAME_BYTES.deltas + ARENA_SPARE_BYTES);
  #pageSize = 0;
  #pack: OpenPack;
  #unindexed: IndexedPack[] = [];
  #waitingBytes = 0;
  readonly #puts = new Set<Promise<void>>();
  /** Frames join the pack in the order in which they were closed. */
  #chain: Promise<void> = Promise.resolve();
  #failure: { readonly error: unknown } | undefined;
  #written = { packs: 0, pages: 0, nodes: 0, bytes: 0 };
  /** Ids of all packs that were put. */
  readonly packIds: string[] = [];
  /** Names of all indexes that were put. */
  readonly indexNames: string[] = [];
  /** True once the put of an index has begun; even one that fails may have its effect. */
  #isIndexPut = false;

  constructor(place: PackPlace, index: ObjectIndex) {
    this.#place = place;
    this.#pack = newPack(place.sealer);
    this.#index = index;
  }

  /** Takes a copy of a page. `depth` is that of a delta; a whole page has none. */
  addPage(id: Uint8Array, { page, base }: PageObject, depth: number, pageSize: number): void {
    if (pageSize !== this.#pageSize) this.#closePageFrames();
    this.#pageSize = pageSize;
    const number = this.#index.addPending(id, base === undefined ? 0 : depth, base);
    this.#written.pages++;
    if (page.bitmap === undefined) {
      const data = this.#wholeBytes.copy(page.data);
      this.#whole.objects.push({ page: { bitmap: undefined, data }, base: undefined });
      this.#whole.numbers.push(number);
      this.#whole.bytes += data.length;
      if (this.#whole.bytes >= FRAME_BYTES.whole) this.#closeWhole();
    } else {
      const bitmap = this.#deltaBytes.copy(page.bitmap);
      const data = this.#deltaBytes.copy(page.data);
      this.#deltas.objects.push({
        page: { bitmap, data, group: page.group },
        base: base === undefined ? undefined : this.#deltaBytes.copy(base.subarray(0, BASE_ID_BYTES)),
      });
      this.#deltas.numbers.push(number);
      this.#deltas.bytes += data.length + bitmap.length + BASE_ID_BYTES;
      if (this.#deltas.bytes >= FRAME_BYTES.deltas) this.#closeDeltas();
    }
  }

  /** Takes a node, which must not change any more. */
  addNode(id: Uint8Array, node: NodeObject, depth: number): void {
    this.#nodes.objects.push(node);
    const base = node.delta?.base;
    this.#nodes.numbers.push(this.#index.addPending(id, base === undefined ? 0 : depth, base));
    this.#nodes.bytes += node.ids.length + 32;
    this.#written.nodes++;
    if (this.#nodes.bytes >= FRAME_BYTES.nodes) this.#closeNodes();
  }

  /** Resolves when more may be added. Throws earlier errors of packs. */
  async ready(): Promise<void> {
    while (this.#waitingBytes > MAX_WAITING_BYTES && this.#failure === undefined) await this.#chain;
    this.#throwFailure();
  }

  /**
   * Puts everything that is left; resolves when packs and indexes are durable. `beforeIndex` gets the packs that no
   * index names yet; they are durable by then. If it throws, no index ever names them.
   */
  async finish(beforeIndex?: (packs: readonly IndexedPack[]) => Promise<void>): Promise<Written> {
    this.#closePageFrames();
    this.#closeNodes();
    await this.#chain;
    await this.#closePack();
    await Promise.all(this.#puts);
    this.#throwFailure();
    await beforeIndex?.(this.#unindexed);
    await this.#putIndex();
    return this.#written;
  }

  /** Waits until nothing is under way; puts nothing more. */
  async abort(): Promise<void> {
    this.#failure ??= { error: new Error('aborted') };
    await this.#chain;
    await Promise.all(this.#puts);
  }

  /**
   * As `abort`. Then, if the disk is full, deletes the packs that were put, unless an index may name them: they would
   * take room for the grace period.
   */
  async abortAfter(error: unknown): Promise<void> {
    await this.abort();
    if (!isOutOfSpace(error) || this.#isIndexPut) return;
    for (const pack of this.packIds) await this.#place.backend.delete(`packs/${pack}`);
  }

  #throwFailure(): void {
    if (this.#failure !== undefined) throw this.#failure.error;
  }

  #closePageFrames(): void {
    this.#closeWhole();
    this.#closeDeltas();
  }

  #closeWhole(): void {
    const batch = this.#whole;
    this.#whole = newBatch();
    this.#addPageFrame(batch);
    this.#wholeBytes.clear();
  }

  #closeDeltas(): void {
    const batch = this.#deltas;
    this.#deltas = newBatch();
    this.#addPageFrame(batch);
    this.#deltaBytes.clear();
  }

  #addPageFrame(batch: Batch<PageObject>): void {
    if (batch.objects.length === 0) return;
    this.#addFrame(FRAME_KINDS.pages, batch, encodePageFrame(batch.objects, this.#pageSize));
  }

  #closeNodes(): void {
    const batch = this.#nodes;
    this.#nodes = newBatch();
    if (batch.objects.length > 0) this.#addFrame(FRAME_KINDS.nodes, batch, encodeNodeFrame(batch.objects));
  }

  #addFrame(kind: number, batch: Batch<unknown>, encoding: Promise<Uint8Array>): void {
    this.#waitingBytes += batch.bytes;
    // The chain awaits it; until then an error must not count as unhandled.
    encoding.catch(() => {});
    this.#chain = this.#appendNext(this.#chain, kind, batch, encoding);
  }

  async #appendNext(
    before: Promise<void>,
    kind: number,
    batch: Batch<unknown>,
    encoding: Promise<Uint8Array>,
  ): Promise<void> {
    await before;
    try {
      if (this.#failure === undefined) await this.#append(kind, batch, await encoding);
    } catch (error) {
      this.#failure ??= { error };
    }
    this.#waitingBytes -= batch.bytes;
  }

  async #append(kind: number, batch: Batch<unknown>, plain: Uint8Array): Promise<void> {
    const rawBytes = new DataView(plain.buffer, plain.byteOffset).getUint32(4, true);
    if (rawBytes > MAX_FRAME_BYTES) throw new Error(`a frame of ${rawBytes} bytes`);
    const pack = this.#pack;
    const { length, frame } = pack.sealer.seal(pack.bytes, plain);
    const place = { offset: pack.bytes + length.length, length: frame.length, rawBytes, kind };
    pack.frames.push({ ...place, objectCount: batch.numbers.length });
    for (const number of batch.numbers) pack.numbers.push(number);
    pack.pieces.push(length, frame);
    if (frame !== plain) discard(plain);
    pack.bytes = place.offset + frame.length;
    if (pack.bytes >= PACK_BYTES || pack.numbers.length >= FULL_PACK_OBJECTS) await this.#closePack();
  }

  async #closePack(): Promise<void> {
    const pack = this.#pack;
    if (pack.frames.length === 0) return;
    this.#pack = newPack(this.#place.sealer);
    const maxPuts = Math.min(MAX_PUTS, this.#place.backend.parallel ?? 1);
    while (this.#puts.size >= maxPuts) await Promise.race(this.#puts);
    const putting = this.#putPack(pack)
      .catch((error: unknown) => {
        this.#failure ??= { error };
      })
      .finally(() => this.#puts.delete(putting));
    this.#puts.add(putting);
    if (this.#unindexed.length >= PACKS_PER_INDEX) await this.#putIndex();
  }

  async #putPack(pack: OpenPack): Promise<void> {
    const id = idOfPieces(pack.pieces);
    const name = `packs/${toHex(id)}`;
    this.#place.beforePack?.();
    await this.#place.backend.put(name, pack.pieces);
    this.#keepNodes(name, pack);
    const ids = new Uint8Array(pack.numbers.length * ID_BYTES);
    const depths = new Uint8Array(pack.numbers.length);
    const bases: Uint8Array[] = [];
    for (const [i, number] of pack.numbers.entries()) {
      ids.set(this.#index.idOf(number), i * ID_BYTES);
      depths[i] = this.#index.depthOf(number);
      const base = this.#index.baseOf(number);
      if (base !== undefined) bases.push(base);
    }
    for (const piece of pack.pieces) discard(piece);
    this.packIds.push(toHex(id));
    const { salt } = pack.sealer;
    const { bytes, frames } = pack;
    this.#unindexed.push({ id, salt, bytes, frames, ids, depths, bases: Buffer.concat(bases) });
    this.#written.packs++;
    this.#written.bytes += pack.bytes;
  }

  #keepNodes(name: string, { frames, pieces }: OpenPack): void {
    for (const [i, { kind, offset, length }] of frames.entries()) {
      // The head of the pack, then the length and the bytes of each frame.
      const sealed = pieces[2 + 2 * i] as Uint8Array;
      if (kind === FRAME_KINDS.nodes) this.#place.kept?.add(name, [sealed], { offset, length });
    }
  }

  async #putIndex(): Promise<void> {
    const packs = this.#unindexed;
    if (packs.length === 0) return;
    this.#unindexed = [];
    this.#isIndexPut = true;
    for (const { name, bytes } of await putIndexFiles(this.#place, packs)) {
      this.indexNames.push(name);
      this.#written.bytes += bytes;
    }
  }
}

/** Puts the fewest possible indexes of these packs; returns the names and lengths of their files. */
export async function putIndexFiles(
  place: PackPlace,
  packs: readonly IndexedPack[],
): Promise<{ name: string; bytes: number }[]> {
  const files: { name: string; bytes: number }[] = [];
  for (const some of splitForIndexes(packs)) files.push(await putIndexFile(place, some));
  return files;
}

/** Puts one index of these packs, as many as `splitForIndexes` groups; returns the name and length of its file. */
export async function putIndexFile(
  { backend, sealer, kept }: PackPlace,
  packs: readonly IndexedPack[],
): Promise<{ name: string; bytes: number }> {
  const sealed = sealer.seal({ kind: 'index' }, encodeIndex(packs));
  const name = toHex(idOf(sealed));
  await backend.put(`indexes/${name}`, [sealed]);
  kept?.add(`indexes/${name}`, [sealed]);
  return { name, bytes: sealed.length };
}

function newBatch<T>(): Batch<T> {
  return { objects: [], numbers: [], bytes: 0 };
}

function newPack(sealer: Sealer): OpenPack {
  const pack = sealer.newPack();
  const { head } = pack;
  return { sealer: pack, pieces: [head], frames: [], numbers: [], bytes: head.length };
}
