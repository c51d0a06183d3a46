import { lockBytePage } from '../../pages/page-types.ts';
import type { PageSize } from '../../pages/page-types.ts';
import type { PageFile } from './page-file.ts';

/** Positions in page 1 (https://www.sqlite.org/fileformat2.html#the_database_header). */
const FREELIST_HEAD = { page: 1, at: 32 } as const;
const FREELIST_COUNT = { page: 1, at: 36 } as const;
const LARGEST_ROOT = { page: 1, at: 52 } as const;
const INCREMENTAL_VACUUM = { page: 1, at: 64 } as const;

export interface FreePages {
  /** Lost free pages: they held nothing. */
  readonly free: ReadonlySet<number>;
  /**
   * Lost pages of the free list itself, and of pointers from pages to their parents: they held no table data either.
   */
  readonly bookkeeping: ReadonlySet<number>;
}

/** Makes a file with lost pages writable: its list of free pages ends before the first lost page of the list. */
export function mendFreePages(file: PageFile, holes: ReadonlySet<number>): FreePages {
  const free = new Set<number>();
  const bookkeeping = new Set<number>();
  const seen = new Set<number>();
  let count = 0;
  let pointer: { readonly page: number; readonly at: number } = FREELIST_HEAD;
  for (;;) {
    const trunk = file.readNumber(pointer.page, pointer.at);
    if (trunk === 0) break;
    if (!file.has(trunk) || seen.has(trunk) || holes.has(trunk)) {
      if (holes.has(trunk)) bookkeeping.add(trunk);
      file.writeNumber(pointer, 0);
      break;
    }
    seen.add(trunk);
    const leaves = Math.min(file.readNumber(trunk, 4), file.usable / 4 - 2);
    for (let i = 0; i < leaves; i++) {
      const page = file.readNumber(trunk, 8 + 4 * i);
      if (holes.has(page)) free.add(page);
    }
    count += 1 + leaves;
    pointer = { page: trunk, at: 0 };
  }
  file.writeNumber(FREELIST_COUNT, count);
  mendPointerMap(file, holes, bookkeeping);
  return { free, bookkeeping };
}

/** A pointer map with a lost page is useless: the database becomes one without auto_vacuum. */
function mendPointerMap(file: PageFile, holes: ReadonlySet<number>, bookkeeping: Set<number>): void {
  if (!hasPointerMap(file)) return;
  const step = Math.floor(file.usable / 5) + 1;
  const locked = lockBytePage(file.pageSize as PageSize);
  for (let first = 2; first <= file.pageCount; first += step) {
    const page = first === locked ? first + 1 : first;
    if (holes.has(page)) bookkeeping.add(page);
  }
  // If something was cut off, the lists above end with shorter pages, which the map does not know.
  if (bookkeeping.size === 0) return;
  file.writeNumber(LARGEST_ROOT, 0);
  file.writeNumber(INCREMENTAL_VACUUM, 0);
}

export function hasPointerMap(file: PageFile): boolean {
  return file.readNumber(LARGEST_ROOT.page, LARGEST_ROOT.at) !== 0;
}

/** Adds pages to the list of free ones. Only without a pointer map, which would have to change with it. */
export function freePages(file: PageFile, pages: readonly number[]): void {
  const perTrunk = Math.floor(file.usable / 4) - 8;
  for (let from = 0; from < pages.length; from += perTrunk + 1) {
    const [trunk, ...leaves] = pages.slice(from, from + perTrunk + 1) as [number, ...number[]];
    const bytes = Buffer.alloc(file.pageSize);
    bytes.writeUInt32BE(file.readNumber(FREELIST_HEAD.page, FREELIST_HEAD.at), 0);
    bytes.writeUInt32BE(leaves.length, 4);
    for (const [i, leaf] of leaves.entries()) bytes.writeUInt32BE(leaf, 8 + 4 * i);
    file.write(trunk, bytes);
    file.writeNumber(FREELIST_HEAD, trunk);
    const count = file.readNumber(FREELIST_COUNT.page, FREELIST_COUNT.at);
    file.writeNumber(FREELIST_COUNT, count + 1 + leaves.length);
  }
}
