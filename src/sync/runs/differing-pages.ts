/** Differing pages, given in ascending order: counts all, and keeps the numbers of the first ones. */
export class DifferingPages {
  readonly ranges: [first: number, last: number][] = [];
  /** Page numbers. */
  readonly first: number[] = [];
  pageCount = 0;
  rangeCount = 0;
  readonly #maxRanges: number;
  readonly #maxFirst: number;
  #last = 0;

  constructor(maxRanges: number, maxFirst: number) {
    this.#maxRanges = maxRanges;
    this.#maxFirst = maxFirst;
  }

  add(page: number): void {
    const isNext = this.#last === page - 1 && this.pageCount > 0;
    this.#last = page;
    this.pageCount++;
    if (this.first.length < this.#maxFirst) this.first.push(page);
    if (!isNext) {
      this.rangeCount++;
      if (this.rangeCount <= this.#maxRanges) this.ranges.push([page, page]);
      return;
    }
    const range = this.ranges.at(-1);
    if (range !== undefined && this.rangeCount <= this.#maxRanges) range[1] = page;
  }
}
