/** Reports of things that end in any order, made in the order in which they were begun. */
export class OrderedReports {
  readonly #waiting = new Map<number, () => void>();
  #next = 0;

  /** Makes this report, the one for `place` (from 0), as soon as all before it are made. */
  add(place: number, report: () => void): void {
    this.#waiting.set(place, report);
    for (let due = this.#waiting.get(this.#next); due !== undefined; due = this.#waiting.get(this.#next)) {
      this.#waiting.delete(this.#next++);
      due();
    }
  }

  /** Makes the reports that wait for others, which do not come any more. */
  flush(): void {
    const rest = [...this.#waiting].toSorted(([a], [b]) => a - b);
    this.#waiting.clear();
    for (const [, report] of rest) report();
  }
}
