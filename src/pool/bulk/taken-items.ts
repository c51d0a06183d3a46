import { copyValue, isPlainObject } from '../sql/copied-params.ts';

/** A transaction of a bulk write ends once it keeps copies of this many bytes. */
const KEPT_BYTES_MAX = 64 * 1024 * 1024;

interface TakenItem<Item> {
  readonly item: Item;
  /** A copy of the item when it was taken; undefined if nothing in it can change, or if it is an object of a class. */
  readonly copy: Item | undefined;
}

/**
 * The items of one transaction of a bulk write, kept until the commit: if SQLite refuses the transaction as busy, the
 * same items come again. A source may refill one buffer, array or object for each item, so each item is kept as it was
 * when it was taken.
 */
export class TakenItems<Item> {
  readonly #taken: TakenItem<Item>[] = [];
  #keptBytes = 0;

  get count(): number {
    return this.#taken.length;
  }

  get isFull(): boolean {
    return this.#keptBytes >= KEPT_BYTES_MAX;
  }

  add(item: Item): void {
    this.#taken.push({ item, copy: this.#copy(item) as Item | undefined });
  }

  /** The items once more: each item itself, or its copy if the item has changed since. */
  *again(): Generator<Item, void, undefined> {
    for (const { item, copy } of this.#taken)
      yield copy === undefined || isAsBefore(item, copy) ? item : copy;
  }

  #copy(item: unknown): unknown {
    if (ArrayBuffer.isView(item)) return this.#copyValue(item);
    if (Array.isArray(item)) return item.map((value) => this.#copyValue(value));
    if (!isPlainObject(item)) return undefined;
    return Object.fromEntries(Object.entries(item).map(([name, value]) => [name, this.#copyValue(value)]));
  }

  #copyValue(value: unknown): unknown {
    if (ArrayBuffer.isView(value)) this.#keptBytes += value.byteLength;
    return copyValue(value);
  }
}

/** True if every value of the item is unchanged. What the function added to the item does not count. */
function isAsBefore(item: unknown, copy: unknown): boolean {
  if (ArrayBuffer.isView(copy)) return isSameValue(item, copy);
  return Object.entries(copy as object).every(([name, value]) =>
    isSameValue((item as Readonly<Record<string, unknown>>)[name], value),
  );
}

function isSameValue(value: unknown, copy: unknown): boolean {
  if (!ArrayBuffer.isView(copy)) return Object.is(value, copy);
  return ArrayBuffer.isView(value) && Buffer.compare(bytesOf(value), bytesOf(copy)) === 0;
}

function bytesOf(view: ArrayBufferView): Uint8Array {
  return new Uint8Array(view.buffer, view.byteOffset, view.byteLength);
}
