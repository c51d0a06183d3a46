import type { Priority } from '../types.ts';

export interface Queued {
  readonly priority: Priority;
}

/** Highest first. */
const PRIORITIES: readonly Priority[] = ['interactive', 'normal', 'background'];

/** Others are served at most this many times in a row before a class that has a waiting item. */
export const PASSED_OVER_MAX = 8;

interface PriorityClass<Item> {
  readonly items: Item[];
  /** How often another class was served while this one had a waiting item. */
  passedOver: number;
}

/**
 * Decides who is served next: the highest priority first, and within one the first that came. A class that was passed
 * over {@link PASSED_OVER_MAX} times is served next, so that every item is served in the end: among any PASSED_OVER_MAX
 * + 2 servings there is one of each waiting class. Pure.
 */
export class WriteQueue<Item extends Queued> {
  readonly #classes: Readonly<Record<Priority, PriorityClass<Item>>> = {
    interactive: { items: [], passedOver: 0 },
    normal: { items: [], passedOver: 0 },
    background: { items: [], passedOver: 0 },
  };
  #size = 0;

  get size(): number {
    return this.#size;
  }

  push(item: Item): void {
    this.#classes[item.priority].items.push(item);
    this.#size += 1;
  }

  /** Puts a job before all others of its class: it ran once and was refused. */
  pushFront(item: Item): void {
    this.#classes[item.priority].items.unshift(item);
    this.#size += 1;
  }

  /** The next item; it stays in the queue until {@link take}. An item of a higher class may still come first. */
  peek(): Item | undefined {
    return this.#size === 0 ? undefined : this.#next().items[0];
  }

  take(): Item | undefined {
    if (this.#size === 0) return undefined;
    const served = this.#next();
    for (const other of Object.values(this.#classes)) {
      if (other !== served && other.items.length > 0) other.passedOver += 1;
    }
    served.passedOver = 0;
    this.#size -= 1;
    return served.items.shift();
  }

  /** Removes an item that gave up. Returns false if it is not in the queue. */
  remove(item: Item): boolean {
    const { items } = this.#classes[item.priority];
    const index = items.indexOf(item);
    if (index === -1) return false;
    items.splice(index, 1);
    this.#size -= 1;
    return true;
  }

  /** All waiting items, by class. */
  items(): Item[] {
    return PRIORITIES.flatMap((priority) => this.#classes[priority].items);
  }

  #next(): PriorityClass<Item> {
    const { interactive, normal, background } = this.#classes;
    if (isStarved(background)) return background;
    if (isStarved(normal)) return normal;
    if (interactive.items.length > 0) return interactive;
    return normal.items.length > 0 ? normal : background;
  }
}

function isStarved(waiting: PriorityClass<unknown>): boolean {
  return waiting.items.length > 0 && waiting.passedOver >= PASSED_OVER_MAX;
}
