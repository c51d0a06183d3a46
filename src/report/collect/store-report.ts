import { resolve } from 'node:path';
import { isElsewhere } from '../../backup/backends/elsewhere.ts';
import type { Store, StoreCallOptions, StoreSnapshot } from '../../backup/types.ts';
import { SqlsyncError, systemErrorCode } from '../../errors.ts';
import { formatBytes } from '../../cli/terminal/format.ts';
import { DatabaseReader } from '../../sqlite/database-reader.ts';
import { visibleWord } from '../../transport/command-words.ts';
import { clock } from '../html.ts';
import { drawMap, MAX_MAP_PAGES } from '../page-map.ts';
import type { PageMap } from '../page-map.ts';
import { ownersOf, sizesOf } from '../page-owners.ts';
import type { PageOwners } from '../page-owners.ts';
import { growthOf, MAX_MOMENTS } from '../report.ts';
import type { DatabaseReport, Growth, Moment } from '../report.ts';

/** The snapshots of one database, and which of them are looked into. */
export interface ReportedDatabase {
  /** In their order; not empty. */
  readonly snapshots: readonly StoreSnapshot[];
  /** The two that the map compares: undefined if there is only one. */
  readonly pair: readonly [older: StoreSnapshot, newer: StoreSnapshot] | undefined;
}

export interface StoreReportOptions extends StoreCallOptions {
  /** How many snapshots are restored to a temporary file to measure their tables; less than 1 for none. */
  readonly measured: number;
  /** Larger ones are not measured, in bytes. */
  readonly maxBytes: number;
}

/** What the report says of one database of a store. Throws SqlsyncError STORE_*, TEMP_UNAVAILABLE, INTERRUPTED. */
export async function reportDatabase(
  store: Store,
  place: string,
  { snapshots, pair }: ReportedDatabase,
  options: StoreReportOptions,
): Promise<DatabaseReport> {
  const newest = snapshots.at(-1) as StoreSnapshot;
  const shown = snapshots.slice(-MAX_MOMENTS);
  const measures = new Measures(store, pair ?? [newest], options);
  const growth = await measures.growth(chooseMeasured(shown, pair ?? [newest], options.measured));
  return {
    name: newest.path,
    host: newest.host,
    moments: shown.map((each) => momentOf(each, place)),
    omitted: snapshots.length - shown.length,
    growth,
    map: pair === undefined ? undefined : await measures.map(pair),
    remarks: [...measures.remarks],
  };
}

function momentOf({ id, time, pageSize, pageCount, statistics }: StoreSnapshot, place: string): Moment {
  const { pagesChanged, bytesAdded } = statistics;
  // The command has to work in any folder.
  const store = isElsewhere(place) ? place : resolve(place);
  return {
    id,
    atMs: time.getTime(),
    sizeBytes: pageSize * pageCount,
    pagesChanged,
    bytesAdded,
    restore: `sqlsync restore ${visibleWord(`${store}#${id}`)} restored.db`,
  };
}

/** The ones that are compared, and others spread over the history, from its first on; in their order. Pure. */
export function chooseMeasured<T>(all: readonly T[], compared: readonly T[], count: number): T[] {
  const places = new Set<number>();
  for (const each of compared.toReversed())
    if (places.size < count && all.includes(each)) places.add(all.indexOf(each));
  const others = all.flatMap((_, at) => (places.has(at) ? [] : [at]));
  const free = Math.min(count - places.size, others.length);
  for (let i = 0; i < free; i++) places.add(others[Math.floor((i * others.length) / free)] as number);
  return all.filter((_, at) => places.has(at));
}

/** Restores snapshots one after another, and measures what is in them. */
class Measures {
  /** What could not be measured, a sentence each. */
  readonly remarks = new Set<string>();
  readonly #store: Store;
  readonly #options: StoreReportOptions;
  /** Those whose owners are kept; of the others only the sizes are. */
  readonly #compared: ReadonlySet<StoreSnapshot>;
  readonly #owners = new Map<StoreSnapshot, PageOwners>();
  /** By the root: a tree is the same however often it is a snapshot. */
  readonly #sizes = new Map<string | undefined, ReadonlyMap<string, number>>();

  constructor(store: Store, compared: readonly StoreSnapshot[], options: StoreReportOptions) {
    this.#store = store;
    this.#compared = new Set(compared);
    this.#options = options;
  }

  async growth(snapshots: readonly StoreSnapshot[]): Promise<Growth | undefined> {
    const found: [moment: string, sizes: ReadonlyMap<string, number>][] = [];
    for (const snapshot of snapshots) {
      const sizes = await this.#sizesOf(snapshot);
      if (sizes !== undefined) found.push([clock(snapshot.time.getTime()), sizes]);
    }
    if (found.length === 0) return undefined;
    return growthOf(
      found.map(([moment]) => moment),
      found.map(([, sizes]) => sizes),
    );
  }

  async map([older, newer]: readonly [StoreSnapshot, StoreSnapshot]): Promise<PageMap | undefined> {
    const { pageSize } = newer;
    const pageCount = Math.max(older.pageCount, newer.pageCount);
    if (older.pageSize !== pageSize || pageCount > MAX_MAP_PAGES) {
      const why = older.pageSize === pageSize ? 'the database is too large' : 'the pages have another size';
      this.remarks.add(`There is no map of its pages: ${why}.`);
      return undefined;
    }
    const [from, to] = [older, newer].map(({ time }) => clock(time.getTime())) as [string, string];
    const { differingPages: differing } = await this.#store.diff(older, newer, this.#options);
    const owners = [newer, older].flatMap((each) => this.#owners.get(each) ?? []);
    return drawMap({ from, to, pageSize, pageCount, differing, owners });
  }

  async #sizesOf(snapshot: StoreSnapshot): Promise<ReadonlyMap<string, number> | undefined> {
    const { root, pageSize, pageCount } = snapshot;
    const known = this.#sizes.get(root);
    if (known !== undefined && !this.#compared.has(snapshot)) return known;
    if (pageCount * pageSize > this.#options.maxBytes) {
      const limit = formatBytes(this.#options.maxBytes);
      this.remarks.add(`Tables are not measured where the database is larger than ${limit}.`);
      return undefined;
    }
    try {
      const owners = await this.#read(snapshot);
      if (this.#compared.has(snapshot)) this.#owners.set(snapshot, owners);
      const sizes = sizesOf(owners, pageSize);
      this.#sizes.set(root, sizes);
      return sizes;
    } catch (error) {
      const why = whyUnmeasured(error);
      if (why === undefined) throw error;
      this.remarks.add(`The tables of ${snapshot.id.slice(0, 8)} could not be measured: ${why}`);
      return undefined;
    }
  }

  async #read(snapshot: StoreSnapshot): Promise<PageOwners> {
    const { pageCount } = snapshot;
    if (pageCount === 0) return ownersOf(0, []);
    const copy = await this.#store.localCopy(snapshot, this.#options);
    try {
      const database = new DatabaseReader(copy.path, { immutable: true });
      try {
        return ownersOf(pageCount, database.pageOwners());
      } finally {
        database.close();
      }
    } finally {
      copy.remove();
    }
  }
}

/** The reason, if it is damage of one snapshot; undefined for what concerns the whole report. */
export function whyUnmeasured(error: unknown): string | undefined {
  if (error instanceof SqlsyncError)
    return ['STORE_DAMAGED', 'STORE_FILE_MISSING'].includes(error.code) ? error.message : undefined;
  const isOfSqlite = systemErrorCode(error)?.startsWith('SQLITE_') === true;
  return isOfSqlite && error instanceof Error ? error.message : undefined;
}
