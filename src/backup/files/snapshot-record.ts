import { randomBytes } from 'node:crypto';
import { pageSize } from '../../pages/page-types.ts';
import { isHexId } from '../packs/object-id.ts';
import { damaged } from '../store-error.ts';
import type { SnapshotOwner, SnapshotStatistics, StoreSnapshot } from '../types.ts';

const RECORD_VERSION = 1;

/** SQLite's own limit. */
const MAX_PAGE_COUNT = 2 ** 32 - 2;

/** The plain bytes of a snapshot's record. */
export function encodeSnapshot(snapshot: Omit<StoreSnapshot, 'id'>): Uint8Array {
  // The place knows when it was stored.
  const { time, root, parent, original, generation, fileOwner, stored: _, ...rest } = snapshot;
  const record = {
    version: RECORD_VERSION,
    // No two records are equal: otherwise forgetting one could remove the other.
    nonce: randomBytes(8).toString('hex'),
    time: time.toISOString(),
    ...rest,
    fileOwner: fileOwner ?? null,
    root: root ?? null,
    parent: parent ?? null,
    ...(original === undefined ? {} : { original }),
    generation,
  };
  return new TextEncoder().encode(JSON.stringify(record));
}

/** Decodes a record. Throws SqlsyncError STORE_DAMAGED. */
export function decodeSnapshot(plain: Uint8Array, id: string): StoreSnapshot {
  try {
    return parse(JSON.parse(new TextDecoder().decode(plain)) as Record<string, unknown>, id);
  } catch (error) {
    throw damaged(`snapshots/${id}`, 'is no snapshot record that this version knows', error);
  }
}

function parse(record: Record<string, unknown>, id: string): StoreSnapshot {
  const { version, root, parent, original, tags, statistics } = record;
  if (version !== RECORD_VERSION) throw new Error(`version ${String(version)}`);
  const time = new Date(text(record, 'time'));
  const size = number(record, 'pageSize');
  const isValid =
    !Number.isNaN(time.getTime()) &&
    pageSize(size) !== undefined &&
    number(record, 'pageCount') <= MAX_PAGE_COUNT &&
    (record['pageCount'] === 0 ? root === null : isHexId(root)) &&
    (parent === null || isHexId(parent)) &&
    (original === undefined || isHexId(original)) &&
    Array.isArray(tags) &&
    tags.every((tag) => typeof tag === 'string') &&
    typeof statistics === 'object' &&
    statistics !== null;
  if (!isValid) throw new Error('a field is not as it should be');
  return {
    id,
    time,
    host: text(record, 'host'),
    path: text(record, 'path'),
    tags,
    pageSize: size,
    pageCount: number(record, 'pageCount'),
    fileMode: number(record, 'fileMode'),
    fileOwner: ownerOf(record['fileOwner']),
    root: isHexId(root) ? root : undefined,
    parent: parent ?? undefined,
    ...(original === undefined ? {} : { original }),
    generation: record['generation'] === undefined ? undefined : number(record, 'generation'),
    program: text(record, 'program'),
    statistics: statisticsOf(statistics as Record<string, unknown>),
  };
}

function statisticsOf(record: Record<string, unknown>): SnapshotStatistics {
  return {
    pagesChanged: number(record, 'pagesChanged'),
    pagesAdded: number(record, 'pagesAdded'),
    nodesAdded: number(record, 'nodesAdded'),
    bytesAdded: number(record, 'bytesAdded'),
    bytesReceived: number(record, 'bytesReceived'),
    durationMs: number(record, 'durationMs'),
  };
}

/** Records of older versions have no owner. */
function ownerOf(value: unknown): SnapshotOwner | undefined {
  if (value === null || value === undefined) return undefined;
  if (typeof value !== 'object') throw new Error('fileOwner is no owner');
  const record = value as Record<string, unknown>;
  return { host: text(record, 'host'), uid: number(record, 'uid'), gid: number(record, 'gid') };
}

function text(record: Record<string, unknown>, field: string): string {
  const value = record[field];
  if (typeof value !== 'string') throw new Error(`${field} is no text`);
  return value;
}

function number(record: Record<string, unknown>, field: string): number {
  const value = record[field];
  if (typeof value !== 'number' || !Number.isSafeInteger(value) || value < 0)
    throw new Error(`${field} is no number`);
  return value;
}
