import type { Backend } from '../backends/backend.ts';
import { decodeFrame } from '../packs/frame.ts';
import type { Frame } from '../packs/frame.ts';
import type { FramePlace } from '../packs/index-file.ts';
import { encodeNode } from '../packs/node.ts';
import { BASE_ID_BYTES, fromHex, ID_BYTES, idOf } from '../packs/object-id.ts';
import { comparePack } from '../objects/compare-pack.ts';
import type { PackSealer, Sealer } from '../sealed/sealer.ts';
import { StoreDamage } from '../store-error.ts';

/** Stands for an unknown depth. */
export const NO_DEPTH = 255;

/**
 * The content of a pack as the pack itself shows it. For deltas neither id nor depth: these follow from their bases.
 */
export interface ScannedPack {
  /** 64 hexadecimal digits, as its name. */
  readonly id: string;
  /** See `PackSealer`. */
  readonly salt: Uint8Array | undefined;
  readonly bytes: number;
  /** False if its bytes do not match its name, or a frame of it cannot be read. */
  readonly isWhole: boolean;
  /** The readable frames. */
  readonly frames: readonly FramePlace[];
  /** For all objects in the order of frames; for a delta without a name yet, random bytes that are no object's id. */
  readonly ids: Uint8Array;
  /** `NO_DEPTH` for a delta without a name yet. */
  readonly depths: Uint8Array;
  /** See `IndexedPack`. */
  readonly bases: Uint8Array;
}

/**
 * Reads a pack from frame to frame, one in memory at a time, without an index. For a damaged pack, reads all frames up
 * to where the chain of their lengths breaks. Throws SqlsyncError STORE_UNAVAILABLE, STORE_FILE_MISSING.
 */
export async function scanPack(
  backend: Backend,
  sealer: Sealer,
  { id, bytes }: { readonly id: string; readonly bytes: number },
): Promise<ScannedPack> {
  const file = `packs/${id}`;
  let isWhole = !(await comparePack(backend, id)).isChanged;
  const frames: FramePlace[] = [];
  const ids: Uint8Array[] = [];
  const depths: number[] = [];
  const bases: Uint8Array[] = [];
  const pack = sealer.packIn(await backend.get(file, { offset: 0, length: sealer.packHeadBytes }));
  if (pack === undefined) isWhole = false;
  for (let at = sealer.packHeadBytes; pack !== undefined && at < bytes;) {
    const before = await backend.get(file, { offset: at, length: pack.lengthBytes });
    const length = pack.lengthIn(at, before) ?? bytes;
    const offset = at + pack.lengthBytes;
    at = offset + length;
    if (at > bytes) {
      isWhole = false;
      break;
    }
    const read = readFrame(pack, offset, await backend.get(file, { offset, length }), file);
    if (read === undefined) {
      isWhole = false;
      continue;
    }
    const { frame, kind, rawBytes } = read;
    frames.push({ offset, length, rawBytes, kind, objectCount: frame.objectCount });
    for (const known of wholeIds(frame)) {
      ids.push(known ?? unknownId(id, ids.length));
      depths.push(known === undefined ? NO_DEPTH : 0);
    }
    bases.push(...basesIn(frame));
  }
  return {
    id,
    salt: pack?.salt,
    bytes,
    isWhole,
    frames,
    ids: Buffer.concat(ids),
    depths: Uint8Array.from(depths),
    bases: Buffer.concat(bases),
  };
}

function readFrame(
  pack: PackSealer,
  offset: number,
  sealed: Uint8Array,
  file: string,
): { frame: Frame; kind: number; rawBytes: number } | undefined {
  try {
    const plain = pack.open(offset, sealed, file);
    const kind = plain[0] ?? 0;
    const rawBytes =
      plain.length < 8 ? 0 : new DataView(plain.buffer, plain.byteOffset, plain.length).getUint32(4, true);
    return { frame: decodeFrame(plain, file).frame, kind, rawBytes };
  } catch (error) {
    if (error instanceof StoreDamage) return undefined;
    throw error;
  }
}

function wholeIds(frame: Frame): (Uint8Array | undefined)[] {
  return Array.from({ length: frame.objectCount }, (_, i) => {
    if (frame.baseOf(i) !== undefined) return undefined;
    if (frame.kind === 'pages') return idOf(frame.object(i).page.data);
    const { level, ids } = frame.object(i);
    return idOf(encodeNode(level, ids));
  });
}

/** Copies, since the frame goes. */
function basesIn(frame: Frame): Uint8Array[] {
  const bases = Array.from({ length: frame.objectCount }, (_, i) => frame.baseOf(i));
  return bases.filter((base) => base !== undefined).map((base) => Uint8Array.from(base));
}

/** Different from all others, and spread like real ids. */
function unknownId(pack: string, object: number): Uint8Array {
  const place = new Uint8Array(ID_BYTES + BASE_ID_BYTES);
  place.set(fromHex(pack));
  new DataView(place.buffer).setUint32(ID_BYTES, object, true);
  return idOf(place);
}
