declare const brand: unique symbol;

/** Number of a page, from 1. */
export type PageNumber = number & { readonly [brand]: 'PageNumber' };
/** A number of pages, from 0. */
export type PageCount = number & { readonly [brand]: 'PageCount' };
/** Bytes of a page: a power of two, 512 to 65536. */
export type PageSize = number & { readonly [brand]: 'PageSize' };

export function pageNumber(value: number): PageNumber {
  return value as PageNumber;
}

export function pageCount(value: number): PageCount {
  return value as PageCount;
}

/** `value` as a page size; undefined if SQLite has no such page size. */
export function pageSize(value: number): PageSize | undefined {
  const known =
    Number.isInteger(value) && value >= 512 && value <= 65536 && Number.isInteger(Math.log2(value));
  return known ? (value as PageSize) : undefined;
}

/**
 * The page that contains byte 2^30, where SQLite takes its locks. It holds no data: it reads and hashes as zeros,
 * cannot be written, and is never sent.
 */
export function lockBytePage(size: PageSize): PageNumber {
  return pageNumber(2 ** 30 / size + 1);
}
