import { emptyLeaf } from '../../pages/btree-page.ts';
import { readSchemaObjects, reindex } from '../../sqlite/salvaged-database.ts';
import type { SchemaObject } from '../../sqlite/database-reader.ts';
import type { SalvagedObject, SalvageReport } from '../types.ts';
import { freePages, hasPointerMap, mendFreePages } from './free-pages.ts';
import type { FreePages } from './free-pages.ts';
import { findPlaces } from './lost-places.ts';
import type { LostPlace, Places } from './lost-places.ts';
import { PageFile } from './page-file.ts';
import { mendSchema } from './schema-pages.ts';
import type { Relative } from './schema-pages.ts';

/** The journal mode bytes of page 1: rollback while the file is being mended, whatever the snapshot says. */
const JOURNAL_MODES = { page: 1, at: 16 } as const;
const ROLLBACK = 0x0101;

/**
 * Turns a database file in which the lost pages are zeros into one from which SQLite reads everything else. A pointer
 * to a lost page is an error for SQLite, and never an empty table or a value of zeros. Rebuilds the indexes of complete
 * tables.
 */
export function mendHoles(
  path: string,
  shape: { readonly pageSize: number; readonly pageCount: number },
  lost: ReadonlySet<number>,
  relatives: readonly Relative[],
): SalvageReport {
  const file = new PageFile(path, shape.pageSize, shape.pageCount);
  try {
    const holes = new Set(lost);
    const schema = mendSchema(file, holes, relatives);
    const free = mendFreePages(file, holes);
    const modes = file.readNumber(JOURNAL_MODES.page, JOURNAL_MODES.at);
    file.writeNumber(JOURNAL_MODES, ((modes & 0xffff0000) | ROLLBACK) >>> 0);
    const objects = schemaObjectsOf(path);
    const places = findPlaces(file, holes, objects);
    for (const [page, place] of places.lost) fill(file, page, place);
    const rebuilt = rebuildIndexes(file, objects, places);
    file.writeNumber(JOURNAL_MODES, modes);
    file.sync();
    return {
      pagesLost: lost.size,
      objects: describe({ holes, schemaPagesLost: schema.pagesLost, free, places, rebuilt }),
      objectsWhole: objects.length - new Set([...places.lost.values()].map(({ object }) => object)).size,
      schemaOf: schema.firstPageOf,
      isSchemaLost: schema.isLost,
      isSchemaCertain: schema.isCertain,
    };
  } finally {
    file.close();
  }
}

/**
 * Empty if SQLite cannot read the schema even in its tolerant mode, for example because the database itself was
 * malformed.
 */
function schemaObjectsOf(path: string): SchemaObject[] {
  try {
    return readSchemaObjects(path);
  } catch {
    return [];
  }
}

/**
 * SQLite takes a leaf without cells for damage if another page points to it, but can still delete its owner. As a root
 * it would be an empty table, so a root becomes zeros. A chain of overflow pages that ends too early is damage too,
 * whereas zeros would be content.
 */
function fill(file: PageFile, page: number, { role, kind, pointer }: LostPlace): void {
  if (role === 'btree') file.write(page, emptyLeaf(kind, file.pageSize, file.usable));
  else if (role === 'overflow') file.writeNumber(pointer, 0);
}

/** Rebuilds indexes; returns those that are complete again. */
function rebuildIndexes(file: PageFile, objects: readonly SchemaObject[], places: Places): Set<SchemaObject> {
  const hit = new Set([...places.lost.values()].map(({ object }) => object));
  const hitTables = new Set([...hit].filter(({ type }) => type === 'table').map(({ name }) => name));
  const rebuilt = new Set<SchemaObject>();
  for (const index of hit) {
    const isOfWhole = !hitTables.has(index.table) && objects.some(({ name }) => name === index.table);
    if (index.type !== 'index' || !isOfWhole) continue;
    const pages = places.pagesOf(index).filter((page) => page !== index.rootPage);
    file.write(index.rootPage, emptyLeaf('index', file.pageSize, file.usable));
    if (!hasPointerMap(file)) freePages(file, pages);
    try {
      reindex(file.path, index.name);
      rebuilt.add(index);
    } catch {
      // The index may need a collation that this SQLite lacks. An index without entries would give wrong answers.
      file.write(index.rootPage, new Uint8Array(file.pageSize));
    }
  }
  return rebuilt;
}

function describe({
  holes,
  schemaPagesLost,
  free,
  places,
  rebuilt,
}: {
  readonly holes: ReadonlySet<number>;
  readonly schemaPagesLost: number;
  readonly free: FreePages;
  readonly places: Places;
  readonly rebuilt: ReadonlySet<SchemaObject>;
}): SalvagedObject[] {
  const objects = new Map<SchemaObject, number>();
  for (const { object } of places.lost.values()) objects.set(object, (objects.get(object) ?? 0) + 1);
  const described: SalvagedObject[] = [...objects].map(([object, pagesLost]) => {
    const { name, type, table } = object;
    return { name, type, table, pagesLost, isRebuilt: rebuilt.has(object) };
  });
  described.sort((a, b) => b.pagesLost - a.pagesLost);
  if (schemaPagesLost > 0) described.unshift(unnamed('sqlite_schema', 'schema', schemaPagesLost));
  const rest = [...holes].filter((page) => !places.lost.has(page));
  const unreached = rest.filter((page) => !free.free.has(page) && !free.bookkeeping.has(page));
  // A page that no page points to holds nothing, unless the page that pointed to it is lost too.
  const below = schemaPagesLost + free.bookkeeping.size + places.lost.size > 0 ? unreached.length : 0;
  const [only, ...others] = described;
  if (only?.type === 'table' && others.length === 0 && free.bookkeeping.size === 0)
    described[0] = { ...only, pagesLost: only.pagesLost + below };
  else if (below > 0) described.push(unnamed('(unknown)', 'unknown', below));
  if (rest.length > below) described.push(unnamed('(free)', 'free', rest.length - below));
  return described;
}

function unnamed(name: string, type: SalvagedObject['type'], pagesLost: number): SalvagedObject {
  return { name, type, table: undefined, pagesLost, isRebuilt: false };
}
