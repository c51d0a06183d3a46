import { checkIntegrity } from '../../sqlite/integrity/integrity-check.ts';
import { fileVersion } from '../../origin/origin-file.ts';
import { inspectDatabase, wouldLeaveForeignFiles } from '../../pages/database-file.ts';
import type { Facts, FullFacts } from '../facts.ts';
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

/**
 * Reads the whole database: integrity_check, foreign_key_check, sizes. It keeps no program from writing: a database in
 * WAL mode that is in use is read in a read transaction, and any other file without locks, whose findings count only if
 * no program changed the file meanwhile.
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
  const result = await checkIntegrity(path, BUSY_TIMEOUT_MS, {
    signal: options.signal,
    immutable: !needsLocks,
    withParts: true,
    onBytesRead: (bytes) => options.onProgress?.(Math.min(Math.floor(bytes / header.pageSize), total), total),
  });
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

function nothing(why: string): FullFacts {
  return {
    faults: [],
    unchecked: [`nothing was checked: ${why}`],
    brokenReferences: [],
    sizes: [],
    vacuumBytes: 0,
  };
}
