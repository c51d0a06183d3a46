import type { PageMap } from './page-map.ts';
import { OTHERS } from './page-owners.ts';

/** What a report shows, as plain data. Names in it may be hostile; times are in ms since 1970, sizes in bytes. */
export interface Report {
  /** The store, or the two databases. */
  readonly title: string;
  readonly madeAtMs: number;
  readonly databases: readonly DatabaseReport[];
}

export interface DatabaseReport {
  readonly name: string;
  readonly host: string | undefined;
  /** The oldest first; only the newest if there are many. */
  readonly moments: readonly Moment[];
  /** How many older ones are left out. */
  readonly omitted: number;
  readonly growth: Growth | undefined;
  readonly map: PageMap | undefined;
  /** Why growth or map are missing, a sentence each. */
  readonly remarks: readonly string[];
}

/** A snapshot. */
export interface Moment {
  readonly id: string;
  readonly atMs: number;
  readonly sizeBytes: number;
  readonly pagesChanged: number;
  /** What it added to the store. */
  readonly bytesAdded: number;
  /** The command that restores it. */
  readonly restore: string;
}

/** What each table and index took of the file at some moments. */
export interface Growth {
  /** The oldest first. */
  readonly moments: readonly string[];
  /** The one that grew most first. */
  readonly parts: readonly GrowthOfPart[];
}

export interface GrowthOfPart {
  readonly name: string;
  /** At each moment. */
  readonly bytes: readonly number[];
}

/** The report of a target of the service, as far as it is known. */
export type ReportAnswer =
  | { readonly is: 'ready'; readonly database: DatabaseReport }
  | { readonly is: 'reading' }
  | { readonly is: 'missing'; readonly why: string };

/** How many snapshots a report lists of a database. */
export const MAX_MOMENTS = 200;

/** How many tables and indexes are named; the rest is summed up. */
export const MAX_PARTS = 40;

/**
 * The growth of each table and index, from its bytes at each moment by its name. Pure.
 *
 * @param moments - their names for people.
 */
export function growthOf(moments: readonly string[], sizes: readonly ReadonlyMap<string, number>[]): Growth {
  const names = [...new Set(sizes.flatMap((each) => [...each.keys()]))];
  const parts = names.map((name) => ({ name, bytes: sizes.map((each) => each.get(name) ?? 0) }));
  const byGrowth = parts.toSorted(
    (a, b) => Math.abs(grownBy(b)) - Math.abs(grownBy(a)) || lastOf(b) - lastOf(a),
  );
  const rest = byGrowth.slice(MAX_PARTS);
  const summed = moments.map((_, at) => rest.reduce((sum, { bytes }) => sum + (bytes[at] ?? 0), 0));
  const others = rest.length === 0 ? [] : [{ name: OTHERS, bytes: summed }];
  return { moments, parts: [...byGrowth.slice(0, MAX_PARTS), ...others] };
}

export function grownBy(part: GrowthOfPart): number {
  return lastOf(part) - (part.bytes[0] ?? 0);
}

function lastOf({ bytes }: GrowthOfPart): number {
  return bytes.at(-1) ?? 0;
}
