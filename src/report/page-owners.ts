/** The names of what is no table or index. */
export const FREE = '(free)';
export const UNKNOWN = '(not measured)';
export const OTHERS = '(all others)';

/** The table or index of each page of a database. */
export interface PageOwners {
  readonly names: readonly string[];
  /** By page number less 1: the place of its owner in `names`. */
  readonly ownerOf: Uint32Array;
}

/** Longer names are cut. */
const MAX_NAME_LENGTH = 300;

/** Pages that no b-tree reaches belong to {@link FREE}. */
export function ownersOf(
  pageCount: number,
  owned: Iterable<{ readonly page: number; readonly name: unknown }>,
): PageOwners {
  const names = [FREE];
  const places = new Map<string, number>([[FREE, 0]]);
  const ownerOf = new Uint32Array(pageCount);
  for (const { page, name } of owned) {
    // A damaged schema may have names that are no texts, or very long, and pages beyond the end.
    if (page < 1 || page > pageCount) continue;
    const text = String(name).slice(0, MAX_NAME_LENGTH);
    let place = places.get(text);
    if (place === undefined) {
      place = names.push(text) - 1;
      places.set(text, place);
    }
    ownerOf[page - 1] = place;
  }
  return { names, ownerOf };
}

/** The bytes of the pages of each owner. */
export function sizesOf({ names, ownerOf }: PageOwners, pageSize: number): Map<string, number> {
  const sizes = new Map(names.map((name) => [name, 0]));
  const counts = new Float64Array(names.length);
  for (const owner of ownerOf) (counts[owner] as number)++;
  for (const [at, name] of names.entries()) sizes.set(name, (counts[at] as number) * pageSize);
  return sizes;
}
