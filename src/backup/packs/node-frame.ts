import { NODE_FANOUT } from './node.ts';
import { BASE_ID_BYTES, ID_BYTES } from './object-id.ts';

/** A node as a frame stores it. `ids` belong to all children, or to those in `bitmap`. */
export interface NodeObject {
  readonly level: number;
  readonly childCount: number;
  readonly ids: Uint8Array;
  readonly delta: { readonly base: Uint8Array; readonly bitmap: Uint8Array } | undefined;
}

const BITMAP_BYTES = NODE_FANOUT / 8;

/** A decompressed frame of nodes, not parsed into objects. */
export class NodeFrame {
  readonly kind = 'nodes';
  readonly objectCount: number;
  /** The memory that it takes. */
  readonly bytes: number;
  readonly #body: Uint8Array;
  readonly #offsets: Uint32Array;

  /** Throws an Error for an invalid body. */
  constructor(body: Uint8Array) {
    if (body.length < 4) throw new Error('no number of nodes');
    const count = new DataView(body.buffer, body.byteOffset, body.length).getUint32(0, true);
    if (count * (3 + ID_BYTES) > body.length) throw new Error('more nodes than bytes');
    this.#body = body;
    this.#offsets = new Uint32Array(count + 1);
    let at = 4;
    for (let i = 0; i < count; i++) {
      this.#offsets[i] = at;
      at += this.#lengthAt(at);
      if (at > body.length) throw new Error('a node that ends too early');
    }
    if (at !== body.length) throw new Error('bytes after the last node');
    this.#offsets[count] = at;
    this.objectCount = count;
    this.bytes = body.length + this.#offsets.byteLength;
  }

  /** A view of the beginning of a base's id; undefined for a whole node. */
  baseOf(i: number): Uint8Array | undefined {
    const at = this.#offsets[i] as number;
    return this.#body[at] === 0 ? undefined : this.#body.subarray(at + 1, at + 1 + BASE_ID_BYTES);
  }

  /** The node as stored here, by views. */
  object(i: number): NodeObject {
    const base = this.baseOf(i);
    const at = (this.#offsets[i] as number) + 1 + (base === undefined ? 0 : BASE_ID_BYTES);
    const [level, childCount] = [this.#body[at] as number, this.#body[at + 1] as number];
    const idsAt = at + 2 + (base === undefined ? 0 : BITMAP_BYTES);
    const ids = this.#body.subarray(idsAt, this.#offsets[i + 1]);
    if (base === undefined) return { level, childCount, ids, delta: undefined };
    return { level, childCount, ids, delta: { base, bitmap: this.#body.subarray(at + 2, idsAt) } };
  }

  #lengthAt(start: number): number {
    const body = this.#body;
    const isDelta = body[start] !== 0;
    if (isDelta && body[start] !== 1) throw new Error('a node of an unknown kind');
    const at = start + 1 + (isDelta ? BASE_ID_BYTES : 0);
    const childCount = body[at + 1];
    if (childCount === undefined || childCount === 0 || childCount > NODE_FANOUT)
      throw new Error('a node of an impossible size');
    if (!isDelta) return at + 2 + childCount * ID_BYTES - start;
    let given = 0;
    for (let i = 0; i < BITMAP_BYTES; i++)
      for (let rest = body[at + 2 + i] ?? 0; rest !== 0; rest &= rest - 1) given++;
    return at + 2 + BITMAP_BYTES + given * ID_BYTES - start;
  }
}
