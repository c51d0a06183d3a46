/** A page of a b-tree, as parsed from its bytes (https://www.sqlite.org/fileformat2.html#b_tree_pages). */
export interface BtreePage {
  /** Tables with a rowid are table b-trees; indexes and tables WITHOUT ROWID are index b-trees. */
  readonly kind: BtreeKind;
  readonly isLeaf: boolean;
  readonly cells: readonly BtreeCell[];
  /** The rightmost child of an interior page. */
  readonly right: PagePointer | undefined;
}

export type BtreeKind = 'table' | 'index';

export interface BtreeCell {
  /** The range of the cell in the page, [start, end). */
  readonly start: number;
  readonly end: number;
  /** The child to the left of the cell, in an interior page. */
  readonly child: PagePointer | undefined;
  /** The first overflow page of the payload, and the number of overflow pages. */
  readonly overflow: (PagePointer & { readonly pages: number }) | undefined;
}

/** A page number, and its position in the page. */
export interface PagePointer {
  readonly page: number;
  readonly at: number;
}

const INTERIOR_INDEX = 2;
const INTERIOR_TABLE = 5;
const LEAF_INDEX = 10;
const LEAF_TABLE = 13;

/** On page 1 the database header comes first. */
const FIRST_PAGE_HEADER_BYTES = 100;
const LEAF_HEADER_BYTES = 8;
const INTERIOR_HEADER_BYTES = 12;
const MIN_CELL_BYTES = 4;

/** Parses `bytes` as a b-tree page; undefined if they are not one, or contradict themselves. */
export function parseBtreePage(bytes: Uint8Array, page: number, usable: number): BtreePage | undefined {
  const view = viewOf(bytes);
  const at = page === 1 ? FIRST_PAGE_HEADER_BYTES : 0;
  const type = view.getUint8(at);
  const isLeaf = type === LEAF_INDEX || type === LEAF_TABLE;
  const isTable = type === INTERIOR_TABLE || type === LEAF_TABLE;
  if (!isLeaf && type !== INTERIOR_INDEX && type !== INTERIOR_TABLE) return undefined;
  const first = at + (isLeaf ? LEAF_HEADER_BYTES : INTERIOR_HEADER_BYTES);
  const count = view.getUint16(at + 3);
  if (first + 2 * count > usable) return undefined;
  const cells: BtreeCell[] = [];
  for (let i = 0; i < count; i++) {
    const cell = parseCell(view, view.getUint16(first + 2 * i), { isLeaf, isTable, usable });
    if (cell === undefined) return undefined;
    cells.push(cell);
  }
  const right = isLeaf ? undefined : { page: view.getUint32(at + 8), at: at + 8 };
  return { kind: isTable ? 'table' : 'index', isLeaf, cells, right };
}

function parseCell(
  view: DataView,
  start: number,
  {
    isLeaf,
    isTable,
    usable,
  }: { readonly isLeaf: boolean; readonly isTable: boolean; readonly usable: number },
): BtreeCell | undefined {
  if (start + MIN_CELL_BYTES > usable) return undefined;
  const child = isLeaf ? undefined : { page: view.getUint32(start), at: start };
  let at = isLeaf ? start : start + 4;
  if (isTable && !isLeaf) {
    const end = at + varintAt(view, at).bytes;
    return { start, end, child, overflow: undefined };
  }
  const { value: payload, bytes } = varintAt(view, at);
  at += bytes;
  if (isTable) at += varintAt(view, at).bytes;
  const local = localBytes(payload, isTable, usable);
  const end = at + local + (local < payload ? 4 : 0);
  if (end > usable) return undefined;
  const overflow =
    local === payload
      ? undefined
      : {
          page: view.getUint32(at + local),
          at: at + local,
          pages: Math.ceil((payload - local) / (usable - 4)),
        };
  return { start, end: Math.max(end, start + MIN_CELL_BYTES), child, overflow };
}

/**
 * How many bytes of a payload the cell itself holds
 * (https://www.sqlite.org/fileformat2.html#cell_payload_overflow_pages).
 */
function localBytes(payload: number, isTableLeaf: boolean, usable: number): number {
  const most = isTableLeaf ? usable - 35 : Math.floor(((usable - 12) * 64) / 255) - 23;
  if (payload <= most) return payload;
  const least = Math.floor(((usable - 12) * 32) / 255) - 23;
  const filling = least + ((payload - least) % (usable - 4));
  return filling <= most ? filling : least;
}

function varintAt(view: DataView, at: number): { value: number; bytes: number } {
  let value = 0;
  for (let bytes = 1; bytes <= 8; bytes++) {
    // A byte beyond the page reads as 0; the cell then turns out to be too long.
    const byte = at + bytes - 1 < view.byteLength ? view.getUint8(at + bytes - 1) : 0;
    value = value * 128 + (byte & 0x7f);
    if (byte < 0x80) return { value, bytes };
  }
  return { value: value * 256, bytes: 9 };
}

/**
 * A leaf without cells. SQLite reads it as an empty b-tree if it is a root, and as damage if another page points to it.
 */
export function emptyLeaf(kind: BtreeKind, pageSize: number, usable: number): Uint8Array {
  const page = new Uint8Array(pageSize);
  page[0] = kind === 'table' ? LEAF_TABLE : LEAF_INDEX;
  viewOf(page).setUint16(5, usable % 65536);
  return page;
}

/** What to keep of a page: some of its cells, and new children for interior cells. */
export interface KeptCells {
  readonly cells: readonly { readonly cell: BtreeCell; readonly child: number | undefined }[];
  readonly right: number | undefined;
}

/** The page with only these cells. Without cells and without a right child, an empty leaf. */
export function withCells(
  bytes: Uint8Array,
  page: number,
  usable: number,
  { kind }: BtreePage,
  { cells, right }: KeptCells,
): Uint8Array {
  const at = page === 1 ? FIRST_PAGE_HEADER_BYTES : 0;
  const made = new Uint8Array(bytes.length);
  made.set(bytes.subarray(0, at));
  made.set(bytes.subarray(usable), usable);
  const view = viewOf(made);
  const isLeaf = right === undefined;
  const isTable = kind === 'table';
  view.setUint8(at, isLeaf ? (isTable ? LEAF_TABLE : LEAF_INDEX) : isTable ? INTERIOR_TABLE : INTERIOR_INDEX);
  view.setUint16(at + 3, cells.length);
  if (right !== undefined) view.setUint32(at + 8, right);
  const first = at + (isLeaf ? LEAF_HEADER_BYTES : INTERIOR_HEADER_BYTES);
  let content = usable;
  for (const [i, { cell, child }] of cells.entries()) {
    content -= cell.end - cell.start;
    made.set(bytes.subarray(cell.start, cell.end), content);
    if (child !== undefined) view.setUint32(content, child);
    view.setUint16(first + 2 * i, content);
  }
  view.setUint16(at + 5, content % 65536);
  return made;
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
