import { statfsSync } from 'node:fs';
import { dirname } from 'node:path';
import { checkIntegrity } from '../../sqlite/integrity/integrity-check.ts';
import { fileVersion } from '../../origin/origin-file.ts';
import { inspectDatabase, wouldLeaveForeignFiles } from '../../pages/database-file.ts';
import type { Facts, FullFacts } from '../facts.ts';
import { fileFacts } from './files.ts';
import { isFileWhole } from './still.ts';

export interface FullOptions {
  readonly signal?: AbortSignal | undefined;
  /** Called now and then with an estimate of the pages that were read, of `total`. */
  readonly onProgress?: ((pages: number, total: number) => void) | undefined;
}

/** How long to wait for a lock: only a program with an exclusive lock keeps a reader of a WAL database waiting. */
const BUSY_TIMEOUT_MS = 1000;

/** A schema may have any number of tables. */
const MAX_SIZES = 1000;

/** The share of empty space in pages that VACUUM gets back; rows do not fill pages to the last byte. */
const RECLAIMED = 0.9;

/** The -wal may take this share of the free space meanwhile; how often that is looked at. */
const WAL_SHARE = 0.5;
const WAL_LOOK_MS = 1000;

/**
 * Reads the whole database: integrity_check, foreign_key_check, sizes. A database in WAL mode that is in use is read in
 * one read transaction, during which the WAL only grows and a checkpoint that waits for readers waits; it is given up
 * before the -wal fills the disk. Any other file is read without locks, and its findings count only if no program changed
 * it meanwhile.
 */
export async function fullFacts(facts: Facts, options: FullOptions): Promise<FullFacts> {
  const { path, header, wal, sight } = facts;
  if (header === undefined) return nothing('the file has no header of a database');
  const mayBeInUse = wal.isInUse || (sight !== 'all' && wal.index !== undefined);
  const needsLocks = header.isWal && (mayBeInUse || (wal.file?.bytes ?? 0) > 0);
  const file = inspectDatabase(path);
  if (needsLocks && file !== undefined && wouldLeaveForeignFiles(file))
    return nothing('opening the WAL would create files that the owner of the database could not write');
  if (!needsLocks && !isFileWhole(path)) return nothing('a program is writing it');
  const before = fileVersion(path);
  // The pages are read twice: by integrity_check, and to measure them.
  const total = Math.ceil(facts.database.bytes / header.pageSize) * 2;
  const growth = needsLocks ? watchGrowth(`${path}-wal`) : undefined;
  const signals = [options.signal, growth?.signal].filter((signal) => signal !== undefined);
  const result = await checkIntegrity(path, BUSY_TIMEOUT_MS, {
    signal: AbortSignal.any(signals),
    immutable: !needsLocks,
    withParts: true,
    onBytesRead: (bytes) => options.onProgress?.(Math.min(Math.floor(bytes / header.pageSize), total), total),
  }).finally(() => growth?.end());
  if (growth?.signal.aborted === true)
    return nothing(
      'the -wal grew by half of the free space, because its frames are kept while they are read; check a copy (sqlsync DB copy.db)',
    );
  if (!result.made) return nothing(result.why);
  if (!needsLocks && (fileVersion(path) !== before || !isFileWhole(path)))
    return nothing(
      'a program wrote it meanwhile, and this mode has no lock that a writer would not notice; check a copy (sqlsync DB copy.db)',
    );
  const { findings, unchecked, parts } = result;
  const { sizes = [], brokenReferences = [], unmeasured = [] } = parts ?? {};
  const unused = sizes.reduce(
    (sum, part) => sum + Math.floor((part.unusedBytes * RECLAIMED) / header.pageSize),
    0,
  );
  return {
    faults: findings,
    unchecked: [...unchecked, ...unmeasured],
    brokenReferences,
    sizes: sizes.slice(0, MAX_SIZES),
    vacuumBytes: (header.freePages + unused) * header.pageSize,
  };
}

/** Aborts its signal when the file has grown by a large part of the space that was free at first. */
export function watchGrowth(
  path: string,
  freeBytes: number = freeBytesAt(path),
  everyMs: number = WAL_LOOK_MS,
): { readonly signal: AbortSignal; end(): void } {
  const tooLong = new AbortController();
  const before = fileFacts(path)?.bytes ?? 0;
  const timer = setInterval(() => {
    const grown = (fileFacts(path)?.bytes ?? 0) - before;
    if (grown > freeBytes * WAL_SHARE) tooLong.abort();
  }, everyMs);
  return { signal: tooLong.signal, end: () => clearInterval(timer) };
}

function freeBytesAt(path: string): number {
  const { bavail, bsize } = statfsSync(dirname(path));
  return bavail * bsize;
}

function nothing(why: string): FullFacts {
  return {
    faults: [],
    unchecked: [`nothing was checked: ${why}`],
    brokenReferences: [],
    sizes: [],
    vacuumBytes: 0,
  };
}
