import { constants, zstdCompress, zstdDecompressSync } from 'node:zlib';
import type { ZstdOptions } from 'node:zlib';
import { promisify } from 'node:util';
import { bitmapBytes, decodeBatch, encodeBatch } from '../../protocol/page-batch.ts';
import type { BatchPage } from '../../protocol/page-batch.ts';
import { pageSize } from '../pages/page-types.ts';
import { NODE_FANOUT } from './node.ts';
import { BASE_ID_BYTES, ID_BYTES } from './object-id.ts';
import { discard } from './frame-memory.ts';
import { damaged } from './store-error.ts';

export const FRAME_KINDS = { pages: 1, nodes: 2 } as const;

/** Body of the largest frame, decompressed. */
export const MAX_FRAME_BYTES: number = 4 * 1024 * 1024;

const HEADER_BYTES = 8;
const ENCODING_RAW = 0;
const ENCODING_ZSTD = 1;

/** As on the wire: level 3 gains nothing over level 1 on pages and block deltas. */
const ZSTD_PARAMETERS = { [constants.ZSTD_c_compressionLevel]: 1, [constants.ZSTD_c_minMatch]: 6 };

/** With less room than that, another piece would be begun to see that nothing follows. */
const SPARE_BYTES = 1024;

const compress = promisify(zstdCompress);

/** A page as a frame has it: whole, or the changed blocks and the beginning of the base's id. */
export interface PageObject {
  readonly page: BatchPage;
  /** `BASE_ID_BYTES`; undefined for a whole page. */
  readonly base: Uint8Array | undefined;
}

/** A node as a frame has it. `ids` are of all children, or of those in `bitmap`. */
export interface NodeObject {
  readonly level: number;
  readonly childCount: number;
  readonly ids: Uint8Array;
  readonly delta: { readonly base: Uint8Array; readonly bitmap: Uint8Array } | undefined;
}

/** A frame that was read. */
export type Frame =
  | { readonly kind: 'pages'; readonly pageSize: number; readonly objects: readonly PageObject[] }
  | { readonly kind: 'nodes'; readonly objects: readonly NodeObject[] };

/** The plain bytes of a frame of pages, compressed in another thread. `pages` are not needed any more when the call returns. */
export function encodePageFrame(pages: readonly PageObject[], size: number): Promise<Uint8Array> {
  const deltas = pages.filter(({ base }) => base !== undefined);
  const batch = encodeBatch(pages.map(({ page }) => page));
  const body = new Uint8Array(8 + deltas.length * BASE_ID_BYTES + batch.length);
  const view = new DataView(body.buffer);
  view.setUint32(0, pages.length, true);
  view.setUint32(4, deltas.length, true);
  for (const [i, { base }] of deltas.entries()) body.set(base as Uint8Array, 8 + i * BASE_ID_BYTES);
  body.set(batch, 8 + deltas.length * BASE_ID_BYTES);
  discard(batch);
  return encodeFrame(FRAME_KINDS.pages, Math.log2(size), body);
}

/** The plain bytes of a frame of nodes. */
export function encodeNodeFrame(nodes: readonly NodeObject[]): Promise<Uint8Array> {
  const pieces: Uint8Array[] = [new Uint8Array(4)];
  new DataView((pieces[0] as Uint8Array).buffer).setUint32(0, nodes.length, true);
  for (const { level, childCount, ids, delta } of nodes) {
    pieces.push(Uint8Array.of(delta === undefined ? 0 : 1));
    if (delta !== undefined) pieces.push(delta.base);
    pieces.push(Uint8Array.of(level, childCount));
    if (delta !== undefined) pieces.push(delta.bitmap);
    pieces.push(ids);
  }
  return encodeFrame(FRAME_KINDS.nodes, 0, Buffer.concat(pieces));
}

async function encodeFrame(kind: number, sizeLog: number, body: Uint8Array): Promise<Uint8Array> {
  // In one piece: pieces of 64 KiB that are joined in the end cost as much as the compression.
  const packed = await compress(body, { params: ZSTD_PARAMETERS, chunkSize: body.length + SPARE_BYTES });
  const pays = packed.length < body.length;
  const data = pays ? packed : body;
  const frame = new Uint8Array(HEADER_BYTES + data.length);
  frame.set([kind, pays ? ENCODING_ZSTD : ENCODING_RAW, sizeLog, 0]);
  new DataView(frame.buffer).setUint32(4, body.length, true);
  frame.set(data, HEADER_BYTES);
  discard(packed);
  discard(body);
  return frame;
}

/**
 * The inverse, with the memory in which the objects lie, for `discard`. Takes `plain` over, which nobody may use after that. `file`
 * is for the error: STORE_DAMAGED.
 */
export function decodeFrame(plain: Uint8Array, file: string): { frame: Frame; memory: Uint8Array } {
  const { bytes, rawBytes, encoding } = bodyOf(plain, file);
  if (encoding === ENCODING_RAW) return { frame: parse(plain, bytes, file), memory: plain };
  const memory = checked(file, () => zstdDecompressSync(bytes, decompressOptions(rawBytes)));
  // A plain array: views of a Buffer take several times as long to make.
  const body = new Uint8Array(memory.buffer, memory.byteOffset, memory.length);
  const frame = parse(plain, body, file);
  discard(plain);
  return { frame, memory };
}

function decompressOptions(rawBytes: number): ZstdOptions {
  return { maxOutputLength: rawBytes + SPARE_BYTES, chunkSize: rawBytes + SPARE_BYTES };
}

function bodyOf(
  plain: Uint8Array,
  file: string,
): { bytes: Uint8Array; rawBytes: number; encoding: number | undefined } {
  if (plain.length < HEADER_BYTES) throw damaged(file, 'has a frame that is too short');
  const rawBytes = new DataView(plain.buffer, plain.byteOffset, plain.length).getUint32(4, true);
  const encoding = plain[1];
  if (rawBytes > MAX_FRAME_BYTES || (encoding !== ENCODING_RAW && encoding !== ENCODING_ZSTD))
    throw damaged(file, 'has a frame with an impossible header');
  return { bytes: plain.subarray(HEADER_BYTES), rawBytes, encoding };
}

function parse(plain: Uint8Array, body: Uint8Array, file: string): Frame {
  const view = new DataView(plain.buffer, plain.byteOffset, plain.length);
  if (body.length !== view.getUint32(4, true)) throw damaged(file, 'has a frame of another length');
  return checked(file, (): Frame => {
    if (plain[0] === FRAME_KINDS.nodes) return { kind: 'nodes', objects: parseNodes(body) };
    const size = pageSize(2 ** (plain[2] as number));
    if (plain[0] !== FRAME_KINDS.pages || size === undefined) throw new Error('unknown kind or page size');
    return { kind: 'pages', pageSize: size, objects: parsePages(body, size) };
  });
}

function parsePages(body: Uint8Array, size: number): PageObject[] {
  const view = new DataView(body.buffer, body.byteOffset, body.length);
  const count = view.getUint32(0, true);
  const deltas = view.getUint32(4, true);
  const batchAt = 8 + deltas * BASE_ID_BYTES;
  const smallest = Math.min(size, 1 + bitmapBytes(size));
  if (batchAt > body.length || count * smallest > body.length) throw new Error('more pages than bytes');
  const wanted = Array.from({ length: count }, (_, i) => ({ pageNumber: i, hasBlocks: true }));
  const pages = decodeBatch(body.subarray(batchAt), size, wanted);
  let at = 8;
  const objects = pages.map((page): PageObject => {
    if (page.bitmap === undefined) return { page, base: undefined };
    at += BASE_ID_BYTES;
    return { page, base: body.subarray(at - BASE_ID_BYTES, at) };
  });
  if (at !== batchAt) throw new Error('another number of bases than of deltas');
  return objects;
}

function parseNodes(body: Uint8Array): NodeObject[] {
  const view = new DataView(body.buffer, body.byteOffset, body.length);
  let at = 0;
  const take = (length: number): Uint8Array => {
    if (at + length > body.length) throw new Error('a node that ends too early');
    at += length;
    return body.subarray(at - length, at);
  };
  take(4);
  const nodes = Array.from({ length: view.getUint32(0, true) }, (): NodeObject => {
    const isDelta = take(1)[0] === 1;
    const base = isDelta ? take(BASE_ID_BYTES) : undefined;
    const [level, childCount] = take(2) as unknown as [number, number];
    if (childCount === 0 || childCount > NODE_FANOUT) throw new Error('a node of an impossible size');
    if (base === undefined) {
      return { level, childCount, ids: take(childCount * ID_BYTES), delta: undefined };
    }
    const bitmap = take(NODE_FANOUT / 8);
    return { level, childCount, ids: take(bitsIn(bitmap) * ID_BYTES), delta: { base, bitmap } };
  });
  if (at !== body.length) throw new Error('bytes after the last node');
  return nodes;
}

function bitsIn(bitmap: Uint8Array): number {
  let bits = 0;
  for (const byte of bitmap) for (let rest = byte; rest !== 0; rest &= rest - 1) bits++;
  return bits;
}

function checked<T>(file: string, parsing: () => T): T {
  try {
    return parsing();
  } catch (error) {
    throw damaged(file, 'has a frame that cannot be read', error);
  }
}
