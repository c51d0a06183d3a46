import { emptyLeaf, withCells } from '../../pages/btree-page.ts';
import type { BtreePage, KeptCells } from '../../pages/btree-page.ts';
import { HEADER_BYTES, parseHeader } from '../../pages/header.ts';
import type { PageFile } from './page-file.ts';

/** Another snapshot of the same database, which may still have a page that is lost here. */
export interface Relative {
  readonly id: string;
  readonly isOlder: boolean;
  /** undefined if the page is lost there, or does not exist. */
  readPage(page: number): Uint8Array | undefined;
}

export interface SchemaReport {
  /** The snapshot that page 1 comes from; undefined if page 1 was not lost, and if no snapshot has it. */
  readonly firstPageOf: string | undefined;
  /** True if page 1 was lost and no snapshot has it: then no table has a name. */
  readonly isLost: boolean;
  /** False if the schema comes from another snapshot, and may have been different. */
  readonly isCertain: boolean;
  /** Pages of the schema that are lost for good. */
  readonly pagesLost: number;
}

const FIRST_PAGE = 1;

/**
 * Makes the schema of a salvaged file readable, since no table is readable without it. Every change of the schema
 * increases the schema cookie, so another snapshot with the same cookie has the same schema pages. Schema entries that
 * no snapshot has are removed.
 *
 * @param holes - lost pages; recovered ones are removed from the set.
 * @param relatives - those of the same page size, the nearest first.
 */
export function mendSchema(file: PageFile, holes: Set<number>, relatives: readonly Relative[]): SchemaReport {
  const first = holes.has(FIRST_PAGE) ? mendFirstPage(file, relatives) : undefined;
  if (first !== undefined) holes.delete(FIRST_PAGE);
  const usable = first === undefined || first.isCertain ? sameSchema(file, relatives) : first.relatives;
  const schema = new SchemaTree(file, holes, usable);
  schema.borrow();
  const pagesLost = schema.prune();
  return {
    firstPageOf: first?.id,
    isLost: first !== undefined && first.id === undefined,
    isCertain: first?.isCertain ?? true,
    pagesLost: pagesLost + (first !== undefined && first.id === undefined ? 1 : 0),
  };
}

interface FirstPage {
  readonly id: string | undefined;
  readonly isCertain: boolean;
  readonly relatives: readonly Relative[];
}

/** The schema is certain if the snapshots before and after have the same one. */
function mendFirstPage(file: PageFile, relatives: readonly Relative[]): FirstPage {
  const nearest = (isOlder: boolean): { relative: Relative; page: Uint8Array } | undefined => {
    for (const relative of relatives) {
      if (relative.isOlder !== isOlder) continue;
      const page = relative.readPage(FIRST_PAGE);
      if (page !== undefined && parseHeader(page)?.pageSize === file.pageSize) return { relative, page };
    }
    return undefined;
  };
  const [older, newer] = [nearest(true), nearest(false)];
  const chosen = older ?? newer;
  file.write(FIRST_PAGE, ownFirstPage(file, chosen?.page ?? emptyDatabase(file.pageSize)));
  const isCertain = older !== undefined && newer !== undefined && hasSameSchema(older.page, newer.page);
  return { id: chosen?.relative.id, isCertain, relatives: chosen === undefined ? [] : [chosen.relative] };
}

/** With the size of this file and without free pages, which are unknown. */
function ownFirstPage(file: PageFile, page: Uint8Array): Uint8Array {
  const own = Buffer.from(page);
  own.writeUInt32BE(file.pageCount, 28);
  own.copy(own, 92, 24, 28);
  own.fill(0, 32, 40);
  return own;
}

function emptyDatabase(pageSize: number): Uint8Array {
  const page = Buffer.alloc(pageSize);
  page.write('SQLite format 3\0', 'latin1');
  page.writeUInt16BE(pageSize === 65536 ? 1 : pageSize, 16);
  page.set([1, 1, 0, 64, 32, 32], 18);
  for (const [at, number] of [
    [24, 1],
    [40, 1],
    [44, 4],
    [56, 1],
    [96, 3_046_000],
  ] as const)
    page.writeUInt32BE(number, at);
  page.set(emptyLeaf('table', pageSize, pageSize).subarray(0, 8), HEADER_BYTES);
  return page;
}

function sameSchema(file: PageFile, relatives: readonly Relative[]): Relative[] {
  const page = file.read(FIRST_PAGE);
  return relatives.filter((relative) => {
    const other = relative.readPage(FIRST_PAGE);
    return other !== undefined && hasSameSchema(page, other);
  });
}

/** Compares the cookie, and the page itself, since a file of another history may have reached the same number. */
function hasSameSchema(a: Uint8Array, b: Uint8Array): boolean {
  return (
    parseHeader(a)?.schemaCookie === parseHeader(b)?.schemaCookie &&
    Buffer.compare(a.subarray(HEADER_BYTES), b.subarray(HEADER_BYTES)) === 0
  );
}

/** The b-tree of sqlite_schema. */
class SchemaTree {
  readonly #file: PageFile;
  readonly #holes: Set<number>;
  readonly #relatives: readonly Relative[];
  readonly #seen = new Set<number>();

  constructor(file: PageFile, holes: Set<number>, relatives: readonly Relative[]) {
    this.#file = file;
    this.#holes = holes;
    this.#relatives = relatives;
  }

  /** Takes lost pages from the relatives. */
  borrow(): void {
    this.#seen.clear();
    this.#borrowBelow(FIRST_PAGE);
  }

  /** Removes entries that lead to lost pages; returns how many pages those are. */
  prune(): number {
    this.#seen.clear();
    const lost = new Set<number>();
    const top = this.#prune(FIRST_PAGE, lost);
    if (top === undefined) {
      const page = this.#file.read(FIRST_PAGE);
      const parsed: BtreePage = { kind: 'table', isLeaf: true, cells: [], right: undefined };
      this.#file.write(
        FIRST_PAGE,
        withCells(page, FIRST_PAGE, this.#file.usable, parsed, { cells: [], right: undefined }),
      );
    }
    for (const page of lost) this.#holes.delete(page);
    return lost.size;
  }

  #isThere(page: number): boolean {
    if (!this.#file.has(page)) return false;
    if (!this.#holes.has(page)) return true;
    for (const relative of this.#relatives) {
      const bytes = relative.readPage(page);
      if (bytes === undefined) continue;
      this.#file.write(page, bytes);
      this.#holes.delete(page);
      return true;
    }
    return false;
  }

  #borrowBelow(page: number): void {
    if (this.#seen.has(page) || !this.#isThere(page)) return;
    this.#seen.add(page);
    const parsed = this.#file.readBtreePage(page);
    for (const { child, overflow } of parsed?.cells ?? []) {
      if (child !== undefined) this.#borrowBelow(child.page);
      for (let next = overflow?.page ?? 0, i = 0; i < (overflow?.pages ?? 0) && this.#isThere(next); i++)
        next = this.#file.readNumber(next, 0);
    }
    if (parsed?.right !== undefined) this.#borrowBelow(parsed.right.page);
  }

  /** The page that leads to what is left below `page`; undefined if nothing is left. */
  #prune(page: number, lost: Set<number>): number | undefined {
    if (this.#holes.has(page)) lost.add(page);
    if (this.#seen.has(page) || this.#holes.has(page) || !this.#file.has(page)) return undefined;
    this.#seen.add(page);
    const parsed = this.#file.readBtreePage(page);
    if (parsed === undefined) return undefined;
    const kept = parsed.isLeaf ? this.#keptOfLeaf(parsed, lost) : this.#keptOfInterior(parsed, lost);
    if (kept.cells.length === 0 && page !== FIRST_PAGE) return kept.right;
    const isSame =
      kept.cells.length === parsed.cells.length &&
      kept.right === parsed.right?.page &&
      kept.cells.every(({ cell, child }) => child === cell.child?.page);
    if (!isSame)
      this.#file.write(page, withCells(this.#file.read(page), page, this.#file.usable, parsed, kept));
    return page;
  }

  #keptOfLeaf({ cells }: BtreePage, lost: Set<number>): KeptCells {
    const whole = cells.filter(({ overflow }) => {
      for (let next = overflow?.page ?? 0, i = 0; i < (overflow?.pages ?? 0); i++) {
        if (this.#holes.has(next)) lost.add(next);
        if (this.#holes.has(next) || !this.#file.has(next)) return false;
        next = this.#file.readNumber(next, 0);
      }
      return true;
    });
    return { cells: whole.map((cell) => ({ cell, child: undefined })), right: undefined };
  }

  #keptOfInterior({ cells, right }: BtreePage, lost: Set<number>): KeptCells {
    const kept = cells.flatMap((cell) => {
      const child = this.#prune(cell.child?.page ?? 0, lost);
      return child === undefined ? [] : [{ cell, child }];
    });
    const last = this.#prune(right?.page ?? 0, lost);
    if (last !== undefined) return { cells: kept, right: last };
    // The last remaining child becomes the rightmost one.
    return { cells: kept.slice(0, -1), right: kept.at(-1)?.child };
  }
}
