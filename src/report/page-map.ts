import { FREE, OTHERS, UNKNOWN } from './page-owners.ts';
import type { PageOwners } from './page-owners.ts';

/** Which pages of a database changed, and whose they are. Neighbouring pages share a cell, so that it stays small. */
export interface PageMap {
  /** What is compared, for people. */
  readonly from: string;
  readonly to: string;
  readonly pageSize: number;
  /** The larger of both. */
  readonly pageCount: number;
  readonly pagesChanged: number;
  readonly pagesPerCell: number;
  /** Colours: the first ones of what changed most. */
  readonly owners: readonly MapOwner[];
  /** Runs of equal cells: the place of the owner in `owners`, whether a page of the cell changed, and how many cells. */
  readonly runs: readonly (readonly [owner: number, isChanged: boolean, cells: number])[];
}

export interface MapOwner {
  readonly name: string;
  readonly pages: number;
  readonly changed: number;
}

/** As many cells as are easily drawn, and still seen on a phone. */
export const MAX_CELLS = 2048;

/** Larger databases have no map: its arrays have an entry for each page. */
export const MAX_MAP_PAGES = 16_000_000;

/** Owners with a colour of their own; the last one is for all others. */
export const MAX_OWNERS = 12;

export interface Comparison {
  readonly from: string;
  readonly to: string;
  readonly pageSize: number;
  /** Of the newer state, and of the older one; fewer if they are not known. */
  readonly owners: readonly PageOwners[];
  readonly pageCount: number;
  /** Ascending ranges of the first and the last page number. */
  readonly differing: readonly (readonly [first: number, last: number])[];
}

/** The map of a comparison. Pure. */
export function drawMap(comparison: Comparison): PageMap {
  const { from, to, pageSize, pageCount, differing } = comparison;
  const changed = new Uint8Array(pageCount);
  for (const [first, last] of differing) changed.fill(1, first - 1, last);
  const { names, ownerOf } = joined(comparison);
  const pages = new Float64Array(names.length);
  const changes = new Float64Array(names.length);
  for (let page = 0; page < pageCount; page++) {
    const owner = ownerOf[page] as number;
    (pages[owner] as number)++;
    if (changed[page] === 1) (changes[owner] as number)++;
  }
  const { owners, colourOf } = coloursOf(names, pages, changes);
  const pagesPerCell = Math.max(1, Math.ceil(pageCount / MAX_CELLS));
  const runs: [owner: number, isChanged: boolean, cells: number][] = [];
  for (let first = 0; first < pageCount; first += pagesPerCell) {
    const end = Math.min(pageCount, first + pagesPerCell);
    const [colour, isChanged] = cellOf(
      first,
      end,
      changed,
      (page) => colourOf[ownerOf[page] as number] as number,
    );
    const last = runs.at(-1);
    if (last?.[0] === colour && last[1] === isChanged) last[2]++;
    else runs.push([colour, isChanged, 1]);
  }
  const pagesChanged = changes.reduce((sum, each) => sum + each, 0);
  return { from, to, pageSize, pageCount, pagesChanged, pagesPerCell, owners, runs };
}

/** The owner of each page: in the newer state, or in the older one if only that has the page. */
function joined({ owners, pageCount }: Comparison): PageOwners {
  const names = [owners.length === 0 ? UNKNOWN : FREE];
  const places = new Map([[FREE, 0]]);
  const ownerOf = new Uint32Array(pageCount);
  for (const each of owners.toReversed()) {
    const own = each.names.map((name) => {
      const place = places.get(name) ?? names.push(name) - 1;
      places.set(name, place);
      return place;
    });
    const { length } = each.ownerOf;
    for (let page = 0; page < Math.min(length, pageCount); page++)
      ownerOf[page] = own[each.ownerOf[page] as number] as number;
  }
  return { names, ownerOf };
}

function coloursOf(
  names: readonly string[],
  pages: Float64Array,
  changes: Float64Array,
): { owners: MapOwner[]; colourOf: Uint8Array } {
  const all = names
    .map((name, at) => ({ at, name, pages: pages[at] as number, changed: changes[at] as number }))
    .filter((each) => each.pages > 0)
    .sort((a, b) => b.changed - a.changed || b.pages - a.pages);
  const own = all.length <= MAX_OWNERS ? all : all.slice(0, MAX_OWNERS - 1);
  const rest = all.slice(own.length);
  const colourOf = new Uint8Array(names.length);
  for (const [colour, { at }] of own.entries()) colourOf[at] = colour;
  for (const { at } of rest) colourOf[at] = own.length;
  const sum = (key: 'pages' | 'changed'): number => rest.reduce((total, each) => total + each[key], 0);
  const others = rest.length === 0 ? [] : [{ name: OTHERS, pages: sum('pages'), changed: sum('changed') }];
  return {
    owners: [...own.map(({ name, pages: count, changed }) => ({ name, pages: count, changed })), ...others],
    colourOf,
  };
}

/** The colour of most of the pages that changed, or of most pages if none did. */
function cellOf(
  first: number,
  end: number,
  changed: Uint8Array,
  colourAt: (page: number) => number,
): [colour: number, isChanged: boolean] {
  const isChanged = changed.subarray(first, end).includes(1);
  const counts = new Uint32Array(MAX_OWNERS);
  for (let page = first; page < end; page++)
    if (!isChanged || changed[page] === 1) (counts[colourAt(page)] as number)++;
  return [counts.indexOf(Math.max(...counts)), isChanged];
}
