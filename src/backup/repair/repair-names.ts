import { assembleNode, assemblePage } from '../objects/assemble.ts';
import { FRAME_KINDS } from '../packs/frame.ts';
import type { Frame } from '../packs/frame.ts';
import { fromHex, ID_BYTES, idOf } from '../packs/object-id.ts';
import { ObjectIndex } from '../objects/object-index.ts';
import { ObjectReader } from '../objects/object-reader.ts';
import { NO_DEPTH } from './repair-scan.ts';
import type { ScannedPack } from './repair-scan.ts';
import { throwIfAborted } from '../store-error.ts';
import type { StoreAccess, StoreContents } from '../files/store-files.ts';
import { MAX_PAGE_DEPTH } from '../copy/store-sink.ts';
import { MAX_NODE_DEPTH } from '../snapshots/tree-writer.ts';

/** The index with the packs that no index file names, and a reader with it. */
export interface Named {
  readonly index: ObjectIndex;
  readonly reader: ObjectReader;
  /** Scanned packs in which every object has its id. */
  readonly complete: ReadonlySet<string>;
}

/**
 * Gives the deltas of scanned packs their ids and depths. Each is assembled with its base once that has its id, so
 * every round goes one step up the chains. A delta whose base is not in the store keeps `NO_DEPTH`. Throws SqlsyncError
 * STORE_UNAVAILABLE, INTERRUPTED.
 */
export function nameObjects(
  access: StoreAccess,
  contents: StoreContents,
  packs: readonly ScannedPack[],
  signal: AbortSignal | undefined,
): Named {
  if (packs.length === 0) return { ...contents, complete: new Set() };
  for (;;) {
    const index = indexWith(contents, packs);
    const reader = new ObjectReader(index, access);
    let named = 0;
    for (const pack of packs) named += nameIn(pack, reader, signal);
    if (named > 0) continue;
    const complete = packs.filter(({ isWhole, depths }) => isWhole && !depths.includes(NO_DEPTH));
    return { index, reader, complete: new Set(complete.map(({ id }) => id)) };
  }
}

function indexWith({ index: known, marked }: StoreContents, scanned: readonly ScannedPack[]): ObjectIndex {
  const index = new ObjectIndex();
  const added = scanned.reduce((sum, { depths }) => sum + depths.length, 0);
  // A delta may be of any pack.
  index.reserve(known.objectCount + added, known.deltaCount + added);
  for (const pack of known.packs.values()) index.addPack(known.describe(pack), pack);
  for (const { id, ...pack } of scanned)
    index.addPack({ id: fromHex(id), ...pack }, { present: true, trusted: !marked.has(id) });
  return index;
}

/** Returns how many objects got their ids. */
function nameIn(pack: ScannedPack, reader: ObjectReader, signal: AbortSignal | undefined): number {
  const { index } = reader;
  const { firstFrame, frameCount, firstObject } = index.packs.get(pack.id) as {
    firstFrame: number;
    frameCount: number;
    firstObject: number;
  };
  let named = 0;
  for (let number = firstFrame; number < firstFrame + frameCount; number++) {
    throwIfAborted(signal);
    const first = (index.frames[number] as { firstObject: number }).firstObject - firstObject;
    const count = (index.frames[number] as { objectCount: number }).objectCount;
    if (!pack.depths.subarray(first, first + count).includes(NO_DEPTH)) continue;
    const frame = reader.readFrameOrNothing(number);
    for (let i = 0; frame !== undefined && i < count; i++) {
      if (pack.depths[first + i] !== NO_DEPTH) continue;
      const found = nameOf(frame, i, reader);
      if (found === undefined) continue;
      pack.ids.set(found.id, (first + i) * ID_BYTES);
      pack.depths[first + i] = found.depth;
      named++;
    }
  }
  return named;
}

function nameOf(
  frame: Frame,
  i: number,
  reader: ObjectReader,
): { id: Uint8Array; depth: number } | undefined {
  const base = frame.baseOf(i);
  if (base === undefined) return undefined;
  const { index } = reader;
  // The least deep good copy, whether or not its pack is marked: so no depth becomes larger than it was for the writer.
  const copies = index.copies(base).sort((a, b) => index.depthOf(a) - index.depthOf(b));
  for (const copy of copies) {
    const depth = index.depthOf(copy) + 1;
    if (depth > (frame.kind === 'pages' ? MAX_PAGE_DEPTH : MAX_NODE_DEPTH)) return undefined;
    const old = baseBytes(reader, copy, frame);
    if (old === undefined) continue;
    const whole =
      frame.kind === 'pages'
        ? assemblePage(frame.object(i).page, old, frame.pageSize)
        : assembleNode(frame.object(i), old);
    return { id: idOf(whole), depth };
  }
  return undefined;
}

/**
 * The bytes of a copy as the base for objects in `frame`; undefined if it is damaged, or of another kind or page size.
 */
function baseBytes(reader: ObjectReader, copy: number, frame: Frame): Uint8Array | undefined {
  const kind = reader.index.frameOf(copy)?.kind;
  if (kind !== FRAME_KINDS[frame.kind]) return undefined;
  const bytes = reader.readCopy(copy);
  return frame.kind === 'pages' && bytes?.length !== frame.pageSize ? undefined : bytes;
}
