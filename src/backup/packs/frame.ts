import { encodeBatch } from '../../../protocol/page-batch.ts';
import { pageSize } from '../../pages/page-types.ts';
import { discard } from './frame-memory.ts';
import { NodeFrame } from './node-frame.ts';
import type { NodeObject } from './node-frame.ts';
import { BASE_ID_BYTES } from './object-id.ts';
import { PageFrame } from './page-frame.ts';
import type { PageObject } from './page-frame.ts';
import { damaged } from '../store-error.ts';
import { compressBody, decompressBody } from './zstd.ts';

export const FRAME_KINDS = { pages: 1, nodes: 2 } as const;

/** Body of the largest frame, decompressed. */
export const MAX_FRAME_BYTES: number = 4 * 1024 * 1024;

const HEADER_BYTES = 8;
const ENCODING_RAW = 0;
const ENCODING_ZSTD = 1;

/** A frame that was read. */
export type Frame = PageFrame | NodeFrame;

/** A frame with the memory in which its objects lie. */
export interface DecodedFrame {
  readonly frame: Frame;
  readonly memory: Uint8Array;
}

/**
 * The plain bytes of a frame of pages, compressed in another thread. When the call returns it does not need `pages` any
 * more.
 */
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
  const packed = await compressBody(body);
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
 * Decodes a frame, and returns the memory in which the objects lie, for `discard`. Takes `plain` over: do not use it
 * afterwards. `file` is for the error STORE_DAMAGED.
 */
export function decodeFrame(plain: Uint8Array, file: string): DecodedFrame {
  const { header, packed, rawBytes } = takeApart(plain, file);
  if (packed === undefined) {
    const body = new Uint8Array(plain.buffer, plain.byteOffset + HEADER_BYTES, plain.length - HEADER_BYTES);
    return { frame: parse(header, body, file), memory: plain };
  }
  const memory = checked(file, () => decompressBody(packed, rawBytes));
  discard(plain);
  return decodeBody(header, memory, file);
}

/**
 * A frame whose body was decompressed elsewhere. `header` are its first bytes, `ids` what `wholeIds` gave there, if it was
 * called. Throws SqlsyncError STORE_DAMAGED.
 */
export function decodeBody(
  header: Uint8Array,
  memory: Uint8Array,
  file: string,
  ids?: Uint8Array,
): DecodedFrame {
  return { frame: parse(header, memory, file, ids), memory };
}

/** The parts of a frame; `packed` is undefined if the body is not compressed. Throws SqlsyncError STORE_DAMAGED. */
export function takeApart(
  plain: Uint8Array,
  file: string,
): { header: Uint8Array; packed: Uint8Array | undefined; rawBytes: number } {
  if (plain.length < HEADER_BYTES) throw damaged(file, 'has a frame that is too short');
  // A copy; `slice` of a Buffer would be a view.
  const header = Uint8Array.from(plain.subarray(0, HEADER_BYTES));
  const rawBytes = rawBytesOf(header);
  const encoding = header[1];
  if (rawBytes > MAX_FRAME_BYTES || (encoding !== ENCODING_RAW && encoding !== ENCODING_ZSTD))
    throw damaged(file, 'has a frame with an impossible header');
  return { header, packed: encoding === ENCODING_ZSTD ? plain.subarray(HEADER_BYTES) : undefined, rawBytes };
}

function rawBytesOf(header: Uint8Array): number {
  return new DataView(header.buffer, header.byteOffset, header.length).getUint32(4, true);
}

function parse(header: Uint8Array, body: Uint8Array, file: string, ids?: Uint8Array): Frame {
  if (body.length !== rawBytesOf(header)) throw damaged(file, 'has a frame of another length');
  return checked(file, (): Frame => {
    if (header[0] === FRAME_KINDS.nodes) return new NodeFrame(body);
    const size = pageSize(2 ** (header[2] as number));
    if (header[0] !== FRAME_KINDS.pages || size === undefined) throw new Error('unknown kind or page size');
    return new PageFrame(body, size, ids);
  });
}

function checked<T>(file: string, parsing: () => T): T {
  try {
    return parsing();
  } catch (error) {
    throw damaged(file, 'has a frame that cannot be read', error);
  }
}
