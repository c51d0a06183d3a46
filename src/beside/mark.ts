import { createHash, randomBytes } from 'node:crypto';
import type { Stats } from 'node:fs';
import {
  closeSync,
  fstatSync,
  fsyncSync,
  lstatSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { systemErrorCode } from '../errors.ts';
import { syncFolder } from '../files/durable.ts';
import { hasLastingInodes } from '../files/mounts.ts';
import { fileIdOf } from '../pages/database-file.ts';
import { isAnothers, ownerOfNewFile } from '../files/ownership.ts';
import { readFully } from '../files/read-fully.ts';

/**
 * The mark: a small file `.NAME.sqlsync` beside a replica. It says "this is a copy, made by sqlsync". sqlsync never
 * overwrites a database without a mark unasked, so swapped arguments cannot destroy a production database.
 */
export interface Mark {
  readonly format: 1;
  /** The origin as the user named it, for messages. */
  readonly originName: string;
  /** Host name and absolute path of the origin, to recognize swapped arguments. */
  readonly originHost: string;
  readonly originPath: string;
  /** Device and inode of the replica: the mark holds for that file, not for a later file of the same name. */
  readonly fileId: string;
  /** When the replica's file was created, in milliseconds since 1970, because inodes are reused; 0 if unknown. */
  readonly fileBornMs: number;
  /** What the replica's file was like after the sync, on file systems without lasting inodes; undefined elsewhere. */
  readonly content?: MarkedContent | undefined;
  /** When the mark was written, ISO 8601. */
  readonly time: string;
}

/** Identifies an unchanged file on a file system that gives files other inodes after each mount. */
interface MarkedContent {
  readonly bytes: number;
  /** Time of the last change, in milliseconds since 1970. */
  readonly changedMs: number;
  /** SHA-256 of the first bytes, hexadecimal: they hold the header, with the change counter, and the schema. */
  readonly startSha256: string;
}

/** The fields of a mark that describe the origin. */
export type MarkedOrigin = Pick<Mark, 'originName' | 'originHost' | 'originPath'>;

/** A mark holds two paths and two names; a larger file is not a mark. */
const MAX_MARK_BYTES = 64 * 1024;

/** How many of the file's first bytes the mark covers. */
const START_BYTES = 64 * 1024;

/** Times of FAT file systems are even seconds. */
const TIME_GRAIN_MS = 2000;

/** The most that a mark takes of the replica's permission bits; its owner must be able to replace it. */
const MARK_MODE = 0o644;
const OWNER_WRITES = 0o600;

/** Path of a file that sqlsync keeps beside the database at `path`. */
export function besideReplica(path: string, suffix: '' | '-part' | '-spool' | '-lock' | '-mode'): string {
  return join(dirname(path), `.${basename(path)}.sqlsync${suffix}`);
}

/** Paths of the files that SQLite and sqlsync keep beside the database at `path`, without the mark. */
export function filesBeside(path: string): string[] {
  return [
    ...['-wal', '-shm', '-journal'].map((suffix) => path + suffix),
    ...(['-part', '-spool', '-lock', '-mode'] as const).map((suffix) => besideReplica(path, suffix)),
  ];
}

/**
 * The mark of the database at `path`; undefined if there is no mark of this very file that we understand. On a file
 * system without lasting inodes it reads the file, so this process must not have it open: see `inspectDatabase`.
 */
export function readMark(path: string): Mark | undefined {
  return knownMark(path, (mark) => isOf(mark, path));
}

function knownMark(path: string, isOfFile: (mark: Mark) => boolean): Mark | undefined {
  try {
    const mark: unknown = JSON.parse(readMarkFile(path)?.toString('utf8') ?? 'null');
    return isMark(mark) && isOfFile(mark) ? mark : undefined;
  } catch {
    // A name that is too long, or a folder that may not be searched: no mark can protect anything there.
    return undefined;
  }
}

/**
 * As `readMark`, before this user writes the database: it ignores a mark that another user made. That user could
 * prepare a file and so get the content. On mounts where new files belong to another user than this process's, the mark
 * of that user counts as ours.
 */
export function readOwnMark(path: string): Mark | undefined {
  return ownMark(path, readMark(path));
}

function ownMark(path: string, mark: Mark | undefined): Mark | undefined {
  const owner = lstatSync(besideReplica(path, ''), { throwIfNoEntry: false })?.uid;
  if (mark === undefined || owner === undefined) return undefined;
  return !isAnothers(owner) || owner === ownerOfNewFile(path) ? mark : undefined;
}

/**
 * Marks the file at `marked`, which has or will get the name `path`, as a copy of `origin`. Writes nothing if its mark
 * already says so. Must precede the commit: a mark that comes too late makes the next run refuse, and one that comes
 * too early marks a file that the user allowed us to overwrite. Never throws: a fault becomes a warning, because a
 * missing mark costs one --overwrite and a failed sync costs the copy. Returns a function that restores the former
 * mark.
 */
export function markReplica(
  path: string,
  origin: MarkedOrigin | undefined,
  options: { readonly marked?: string; readonly warnings: string[] },
): () => void {
  // The replica is open: do not read it here.
  const known = ownMark(
    path,
    knownMark(path, (mark) => hasInode(mark, path)),
  );
  if (origin === undefined || marksSameOrigin(known, origin)) return () => {};
  let former: Buffer | undefined;
  const formerMode = MARK_MODE & (lstatSync(besideReplica(path, ''), { throwIfNoEntry: false })?.mode ?? 0);
  try {
    former = readMarkFile(path);
    writeMark(path, options.marked ?? path, origin);
  } catch (error) {
    options.warnings.push(
      `The mark of ${path} could not be written, so the next run will ask for --overwrite: ${String(error)}`,
    );
    return () => {};
  }
  return () => {
    try {
      if (former === undefined) rmSync(besideReplica(path, ''), { force: true });
      else replaceMarkFile(path, former, formerMode);
    } catch {
      // The mark belongs to a file that the user allowed us to overwrite.
    }
  };
}

/**
 * Records in the mark of the replica at `path` what its file is like now, on file systems without lasting inodes. Call
 * it after the commit, when no connection of this process has the replica open. Never throws: a mark that is out of
 * date costs one --overwrite.
 */
export function noteContent(path: string): void {
  try {
    if (hasLastingInodes(path)) return;
    const mark = ownMark(
      path,
      knownMark(path, () => true),
    );
    const content = contentOf(path);
    if (mark === undefined || isSameContent(mark.content, content)) return;
    const stats = statSync(path);
    const noted = { ...mark, fileId: fileIdOf(stats), fileBornMs: bornMs(stats), content };
    replaceMarkFile(path, `${JSON.stringify(noted)}\n`, stats.mode & MARK_MODE);
  } catch {
    // A mark that is out of date costs one --overwrite.
  }
}

function writeMark(path: string, marked: string, origin: MarkedOrigin): void {
  const stats = statSync(marked);
  const { originName, originHost, originPath } = origin;
  const content: Mark = {
    format: 1,
    originName,
    originHost,
    originPath,
    fileId: fileIdOf(stats),
    fileBornMs: bornMs(stats),
    time: new Date().toISOString(),
  };
  // The mark names the origin, so only users who may read the replica may read it.
  replaceMarkFile(path, `${JSON.stringify(content)}\n`, stats.mode & MARK_MODE);
}

function readMarkFile(path: string): Buffer | undefined {
  const markPath = besideReplica(path, '');
  const stats = lstatSync(markPath, { throwIfNoEntry: false });
  if (stats === undefined || !stats.isFile() || stats.size > MAX_MARK_BYTES) return undefined;
  return readFileSync(markPath);
}

/** How the name of a mark's temporary file continues after the mark's own name. */
const TEMPORARY = /^\.\d+-[0-9a-f]{8}$/;

/**
 * Removes temporary marks of `path` that killed runs left. A run whose mark is right does not look for them: that would
 * list a folder of a thousand databases for each of them. Never throws: a later run tries again.
 */
function removeUnfinishedMarks(path: string): void {
  const mark = basename(besideReplica(path, ''));
  try {
    for (const name of readdirSync(dirname(path)))
      if (name.startsWith(mark) && TEMPORARY.test(name.slice(mark.length)))
        rmSync(join(dirname(path), name), { force: true });
  } catch {
    // The folder may be one that cannot be listed.
  }
}

/** Writes durably: the file is there completely or not at all. */
function replaceMarkFile(path: string, content: string | Buffer, mode: number): void {
  try {
    tryReplaceMarkFile(path, content, mode);
  } catch (error) {
    // Another run may have removed the temporary file as a killed run's leftover.
    if (systemErrorCode(error) !== 'ENOENT') throw error;
    tryReplaceMarkFile(path, content, mode);
  }
  removeUnfinishedMarks(path);
}

function tryReplaceMarkFile(path: string, content: string | Buffer, mode: number): void {
  const markPath = besideReplica(path, '');
  const temporary = `${markPath}.${process.pid}-${randomBytes(4).toString('hex')}`;
  const descriptor = openSync(temporary, 'wx', mode | OWNER_WRITES);
  try {
    try {
      writeFileSync(descriptor, content);
      fsyncSync(descriptor);
    } finally {
      closeSync(descriptor);
    }
    renameSync(temporary, markPath);
  } catch (error) {
    rmSync(temporary, { force: true });
    throw error;
  }
  syncFolder(path);
}

/** True if `known` already says what would be written. */
function marksSameOrigin(known: Mark | undefined, origin: MarkedOrigin): boolean {
  return known?.originHost === origin.originHost && known.originPath === origin.originPath;
}

/** True if the mark was written for the file that is at `path`. */
function isOf(known: Mark, path: string): boolean {
  if (hasLastingInodes(path)) return hasInode(known, path);
  // Here a new file may have the inode that another one had before the last mount.
  return known.content !== undefined && isSameContent(known.content, contentOf(path));
}

/**
 * Compares only the inode of the file id: the mark is in the same folder, and some file systems change their device
 * number with each mount.
 */
function hasInode(known: Mark, path: string): boolean {
  const stats = statSync(path, { throwIfNoEntry: false });
  if (stats === undefined || inodeOf(known.fileId) !== inodeOf(fileIdOf(stats))) return false;
  const born = bornMs(stats);
  return born === 0 || known.fileBornMs === 0 || born === known.fileBornMs;
}

/** Opens and closes a descriptor of the file: see `inspectDatabase`. */
function contentOf(path: string): MarkedContent {
  const start = Buffer.alloc(START_BYTES);
  const descriptor = openSync(path, 'r');
  try {
    const { size, mtimeMs } = fstatSync(descriptor);
    const read = readFully(descriptor, start, 0);
    const startSha256 = createHash('sha256').update(start.subarray(0, read)).digest('hex');
    return { bytes: size, changedMs: Math.floor(mtimeMs), startSha256 };
  } finally {
    closeSync(descriptor);
  }
}

function isSameContent(known: MarkedContent | undefined, now: MarkedContent): boolean {
  return (
    known?.bytes === now.bytes &&
    known.startSha256 === now.startSha256 &&
    Math.abs(known.changedMs - now.changedMs) <= TIME_GRAIN_MS
  );
}

function inodeOf(fileId: string): string {
  return fileId.slice(fileId.indexOf(':') + 1);
}

/** 0 if the system does not record it: Node.js then gives 0 or the time of the last change. */
function bornMs({ birthtimeMs, ctimeMs }: Stats): number {
  return birthtimeMs < ctimeMs ? birthtimeMs : 0;
}

function isMark(value: unknown): value is Mark {
  if (typeof value !== 'object' || value === null) return false;
  const known = value as Partial<Record<keyof Mark, unknown>>;
  const texts = [known.originName, known.originHost, known.originPath, known.fileId, known.time];
  return (
    known.format === 1 &&
    typeof known.fileBornMs === 'number' &&
    texts.every((text) => typeof text === 'string') &&
    (known.content === undefined || isContent(known.content))
  );
}

function isContent(value: unknown): value is MarkedContent {
  if (typeof value !== 'object' || value === null) return false;
  const { bytes, changedMs, startSha256 } = value as Partial<Record<keyof MarkedContent, unknown>>;
  return typeof bytes === 'number' && typeof changedMs === 'number' && typeof startSha256 === 'string';
}
