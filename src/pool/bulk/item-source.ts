/** The items of a bulk write, one after the other, from any kind of iterable. */
export class ItemSource<Item> {
  readonly #iterator: Iterator<Item> | AsyncIterator<Item>;
  readonly #isAsync: boolean;
  /** An item that has arrived and was not taken yet. */
  #next: { readonly item: Item } | undefined;
  #coming: Promise<void> | undefined;
  #isDone = false;
  #failure: { readonly error: unknown } | undefined;

  constructor(items: Iterable<Item> | AsyncIterable<Item>) {
    this.#isAsync = isAsync(items);
    this.#iterator = iteratorOf(items);
  }

  /** Waits for the next item without a time limit. Rejects with the source's error. */
  async hasMore(): Promise<boolean> {
    if (this.#next === undefined) await this.#fetch();
    if (this.#failure !== undefined) throw this.#failure.error as Error;
    return this.#next !== undefined;
  }

  /** The next item, if it is there. */
  take(): { readonly item: Item } | undefined {
    if (this.#next === undefined && !this.#isAsync) this.#fetchNow();
    const next = this.#next;
    this.#next = undefined;
    return next;
  }

  /** The next item, or undefined if it did not come in time or the source has ended. */
  async takeWithin(timeoutMs: number): Promise<{ readonly item: Item } | undefined> {
    if (this.#isDone) return undefined;
    let timer: NodeJS.Timeout | undefined;
    const tooLate = new Promise<void>((resolve) => {
      timer = setTimeout(resolve, timeoutMs);
    });
    await Promise.race([this.#fetch(), tooLate]);
    clearTimeout(timer);
    return this.take();
  }

  /** Tells the source that no more items are wanted. */
  stop(): void {
    if (this.#isDone) return;
    this.#isDone = true;
    try {
      // An asynchronous source may be in the middle of its next item: do not wait for it.
      Promise.resolve(this.#iterator.return?.()).catch(() => undefined);
    } catch {
      // The write has failed already, and that error is the one to report.
    }
  }

  #fetch(): Promise<void> | undefined {
    if (this.#isDone) return undefined;
    if (!this.#isAsync) {
      this.#fetchNow();
      return undefined;
    }
    this.#coming ??= Promise.resolve()
      .then(() => this.#iterator.next())
      .then(
        (result) => this.#came(result),
        (error: unknown) => this.#failed(error),
      );
    return this.#coming;
  }

  #fetchNow(): void {
    if (this.#isDone) return;
    try {
      this.#came((this.#iterator as Iterator<Item>).next());
    } catch (error) {
      this.#failed(error);
    }
  }

  #came(result: IteratorResult<Item>): void {
    this.#coming = undefined;
    if (result.done === true) this.#isDone = true;
    else this.#next = { item: result.value };
  }

  /** {@link hasMore} throws it, so that the items before it are committed first. */
  #failed(error: unknown): void {
    this.#coming = undefined;
    this.#isDone = true;
    this.#failure = { error };
  }
}

function isAsync<Item>(items: Iterable<Item> | AsyncIterable<Item>): items is AsyncIterable<Item> {
  // A string is iterable too, but is no object.
  return Symbol.asyncIterator in Object(items);
}

/** If an iterable returns no iterator, its first item fails. */
function iteratorOf<Item>(items: Iterable<Item> | AsyncIterable<Item>): Iterator<Item> | AsyncIterator<Item> {
  try {
    return isAsync(items) ? items[Symbol.asyncIterator]() : asNow(items)[Symbol.iterator]();
  } catch (error) {
    return {
      next: () => {
        throw error;
      },
    };
  }
}

/** A copy of a collection: its owner may empty or fill it while the write waits. */
function asNow<Item>(items: Iterable<Item>): Iterable<Item> {
  if (Array.isArray(items)) return items.slice() as Item[];
  const isLive = items instanceof Set || items instanceof Map || ArrayBuffer.isView(items);
  return isLive ? [...items] : items;
}
