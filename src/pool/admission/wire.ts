/**
 * The frames that the processes of one queue exchange. Each has 16 bytes, so that only the rest of one frame is ever
 * buffered.
 *
 *     0  1  type        1  1  flag, 0 or 1     2  2  zero
 *     4  4  number, little-endian              8  8  time, a little-endian double, in microseconds
 *
 *     to the coordinator              number    flag                         time
 *     hello, the first frame          version   answers `describe`           1 if it answers `listened`, else 0
 *     observe, in its place: what     version
 *       do the members say?
 *     listen, in its place: tell me   version
 *       of commits
 *     enter: asks for a turn          turn      has it already (the last     since when it waits, or has it
 *                                               coordinator gave it)
 *     leave: done, or wants no more   turn
 *     ask: are you there?
 *     here: still at it, to `wanted`  turn
 *     tell: a piece of the answer     question  the last one                 six bytes of text (texts.ts)
 *     wrote: may have committed
 *
 *     from the coordinator
 *     state, the answer to hello                contended: enter, then try
 *     granted                         turn      others wait
 *     wanted: others wait now         turn
 *     answer, to `ask`
 *     describe: what do you do?       question
 *     told, to an observer            member    the last one                 six bytes of text
 *     listened: say `wrote` at once             somebody listens
 *       and after commits
 *     wrote, to a listener: some
 *       member may have committed
 *
 * Times are those of {@link monotonicUs}, which all processes of a machine share.
 */
export const FRAME_BYTES = 16;

/** A coordinator of another version is ignored. */
export const WIRE_VERSION = 0x53510001;

/** The time of the `hello` of a member that answers `listened`. */
export const TELLS_OF_WRITES = 1;

export const REQUESTS = {
  hello: 1,
  enter: 2,
  leave: 3,
  ask: 4,
  here: 5,
  observe: 6,
  tell: 7,
  listen: 8,
  wrote: 9,
} as const;
export const REPLIES = {
  state: 17,
  granted: 18,
  wanted: 19,
  answer: 20,
  describe: 21,
  told: 22,
  listened: 23,
  wrote: 24,
} as const;

export type Request = keyof typeof REQUESTS;
export type Reply = keyof typeof REPLIES;

export interface Frame<Type extends string> {
  readonly type: Type;
  readonly flag: boolean;
  readonly number: number;
  readonly timeUs: number;
}

export function encodeFrame(code: number, number: number, flag = false, timeUs = 0): Buffer {
  const bytes = Buffer.alloc(FRAME_BYTES);
  bytes[0] = code;
  bytes[1] = flag ? 1 : 0;
  bytes.writeUInt32LE(number, 4);
  bytes.writeDoubleLE(timeUs, 8);
  return bytes;
}

/** Cuts a byte stream into frames of one direction. */
export class FrameReader<Type extends string> {
  readonly #types: ReadonlyMap<number, Type>;
  #rest: Buffer = Buffer.alloc(0);

  constructor(codes: Readonly<Record<Type, number>>) {
    this.#types = new Map((Object.keys(codes) as Type[]).map((type) => [codes[type], type]));
  }

  /** The frames that `chunk` completes; undefined if it holds anything that is not a frame. */
  read(chunk: Buffer): Frame<Type>[] | undefined {
    const bytes = this.#rest.length === 0 ? chunk : Buffer.concat([this.#rest, chunk]);
    const frames: Frame<Type>[] = [];
    let at = 0;
    for (; at + FRAME_BYTES <= bytes.length; at += FRAME_BYTES) {
      const type = this.#types.get(bytes[at] as number);
      const flag = bytes[at + 1] as number;
      const timeUs = bytes.readDoubleLE(at + 8);
      const isFrame =
        flag <= 1 && bytes.readUInt16LE(at + 2) === 0 && timeUs >= 0 && timeUs <= Number.MAX_SAFE_INTEGER;
      if (type === undefined || !isFrame) return undefined;
      frames.push({ type, flag: flag === 1, number: bytes.readUInt32LE(at + 4), timeUs });
    }
    // A copy: a view would keep the whole chunk.
    this.#rest = Buffer.from(bytes.subarray(at));
    return frames;
  }
}

/** A monotonic clock that all processes of this machine share, in microseconds. */
export function monotonicUs(): number {
  const [seconds, nanoseconds] = process.hrtime();
  return seconds * 1e6 + nanoseconds / 1e3;
}
