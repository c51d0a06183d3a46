import type { PageNumber } from '../../pages/page-types.ts';
import { pageNumber } from '../../pages/page-types.ts';

/** A set of page numbers: a bit for each page up to the last. */
export class HeldPages {
  #bits = new Uint8Array(1024);
  #count = 0;
  #last = 0;

  get isEmpty(): boolean {
    return this.#count === 0;
  }

  get count(): number {
    return this.#count;
  }

  /** The highest number in the set; 0 if it is empty. */
  get last(): number {
    return this.#last;
  }

  has(page: number): boolean {
    return ((this.#bits[Math.floor(page / 8)] ?? 0) & (1 << (page % 8))) !== 0;
  }

  add(page: PageNumber): void {
    if (this.has(page)) return;
    const at = Math.floor(page / 8);
    if (at >= this.#bits.length) {
      const larger = new Uint8Array(Math.max(this.#bits.length * 2, at + 1));
      larger.set(this.#bits);
      this.#bits = larger;
    }
    this.#bits[at] = (this.#bits[at] ?? 0) | (1 << (page % 8));
    this.#count++;
    this.#last = Math.max(this.#last, page);
  }

  remove(page: PageNumber): void {
    if (!this.has(page)) return;
    const at = Math.floor(page / 8);
    this.#bits[at] = (this.#bits[at] ?? 0) & ~(1 << (page % 8));
    this.#count--;
    if (page === this.#last) this.#last = this.#lastBefore(page);
  }

  /** Removes all numbers after `last`. */
  cut(last: number): void {
    for (let page = this.#last; page > last; page = this.#last) this.remove(pageNumber(page));
  }

  /** In ascending order. The caller may remove pages meanwhile. */
  *[Symbol.iterator](): IterableIterator<PageNumber> {
    for (let page = 1; page <= this.#last; page++) {
      if (this.#bits[Math.floor(page / 8)] === 0) page |= 7;
      else if (this.has(page)) yield pageNumber(page);
    }
  }

  #lastBefore(page: number): number {
    for (let before = page - 1; before > 0; before--) if (this.has(before)) return before;
    return 0;
  }
}
