import type { LocalFiles } from '../backends/backend.ts';
import type { ObjectIndex } from './object-index.ts';
import type { KnownFrame } from './trust.ts';

/**
 * Ranges no further apart than this are read as one, if at least half of what is read is needed: a request takes as long
 * as so many bytes.
 */
const MAX_GAP_BYTES = 256 * 1024;

/** What one request reads at most, unless a frame is longer. */
const MAX_RANGE_BYTES = 4 * 1024 * 1024;

/** Joining frames to ranges takes time: not with each frame. */
const COUNT_EVERY = 32;

/** A frame counts as read for so many calls of `request`; later the reader may have dropped it. */
const REQUESTS_KEPT = 2;

/** A range of a pack, and the place of the first frame in it that will be needed. */
interface PlannedRange {
  readonly name: string;
  readonly offset: number;
  end: number;
  neededBytes: number;
  firstNeeded: number;
}

/**
 * The frames that a reader is about to need, by the indexes alone. Those that lie near each other are requested
 * together, in the order in which they will be needed.
 */
export class ReadPlan {
  readonly #index: ObjectIndex;
  readonly #plan: NonNullable<LocalFiles['plan']>;
  readonly #isHere: (frame: KnownFrame) => boolean;
  /** By frame number: the request that it was part of last. */
  readonly #requestOf = new Map<number, number>();
  #requests = 0;
  /** Frame numbers, in the order in which they will be needed. */
  #frames: number[] = [];
  /** Bytes of the frames that were added and not requested yet. */
  bytes = 0;
  /** How many ranges they are, when there were so many of them. */
  #counted = { frames: 0, ranges: 0 };

  /** @param isHere - true for a frame that this host has a copy of. */
  constructor(
    index: ObjectIndex,
    plan: NonNullable<LocalFiles['plan']>,
    isHere: (frame: KnownFrame) => boolean,
  ) {
    this.#index = index;
    this.#plan = plan;
    this.#isHere = isHere;
  }

  /** Adds an object, with the bases that it is made of. */
  add(id: Uint8Array): void {
    for (const object of this.#index.chainOf(id)) {
      const number = this.#index.frameNumberOf(object);
      const request = this.#requestOf.get(number);
      this.#requestOf.set(number, this.#requests);
      if (request !== undefined && request >= this.#requests - REQUESTS_KEPT) continue;
      const frame = this.#index.frames[number] as KnownFrame;
      if (this.#isHere(frame)) continue;
      this.#frames.push(number);
      this.bytes += frame.length;
    }
  }

  /** How many requests it takes to read what was added; it may lag behind by `COUNT_EVERY`. */
  get requestCount(): number {
    const frames = this.#frames.length;
    if (frames >= this.#counted.frames + COUNT_EVERY)
      this.#counted = { frames, ranges: joined(this.#index, this.#frames).length };
    return this.#counted.ranges;
  }

  /** Requests what was added. */
  request(): void {
    const ranges = joined(this.#index, this.#frames).sort((a, b) => a.firstNeeded - b.firstNeeded);
    for (const { name, offset, end } of ranges) this.#plan(name, { offset, length: end - offset });
    this.#frames = [];
    this.bytes = 0;
    this.#counted = { frames: 0, ranges: 0 };
    this.#requests++;
    for (const [number, request] of this.#requestOf)
      if (request < this.#requests - REQUESTS_KEPT) this.#requestOf.delete(number);
  }
}

/** The ranges that hold these frames. */
function joined(index: ObjectIndex, frames: readonly number[]): PlannedRange[] {
  const ranges: PlannedRange[] = [];
  const placeOf = new Map(frames.map((number, place) => [number, place]));
  // Frames have their numbers in the order of packs and of places in them.
  for (const number of frames.toSorted((a, b) => a - b)) {
    const { pack, offset, length } = index.frames[number] as KnownFrame;
    const name = `packs/${pack.id}`;
    const firstNeeded = placeOf.get(number) as number;
    const end = offset + length;
    const last = ranges.at(-1);
    const isNear =
      last?.name === name &&
      offset - last.end <= MAX_GAP_BYTES &&
      end - last.offset <= Math.min(MAX_RANGE_BYTES, 2 * (last.neededBytes + length));
    if (last === undefined || !isNear) {
      ranges.push({ name, offset, end, neededBytes: length, firstNeeded });
    } else {
      last.end = end;
      last.neededBytes += length;
      last.firstNeeded = Math.min(last.firstNeeded, firstNeeded);
    }
  }
  return ranges;
}
