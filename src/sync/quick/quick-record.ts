import { createHash, randomBytes } from 'node:crypto';
import { lstatSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { HASH_ALGORITHMS } from '../../../protocol/messages.ts';
import type { HashAlgorithm } from '../../../protocol/messages.ts';
import { isOwn } from '../../files/file-owner.ts';
import { makePrivateFolder, userCacheFolder } from '../../files/user-cache.ts';

/** What a full comparison found: a database with the one stamp is an exact copy of a database with the other. */
export interface QuickRecord {
  /** Hexadecimal. */
  readonly originStamp: string;
  readonly replicaStamp: string;
  /** How the pages were compared. */
  readonly hash: HashAlgorithm;
  /** When they were compared, in milliseconds since 1970. */
  readonly comparedAt: number;
  /** The outer stamps of both files at the end of that; '' if the origin is on another host. */
  readonly files: string;
}

/** A pair of databases, by the real path of the replica and the name of the origin. */
export interface QuickPair {
  readonly replicaPath: string;
  readonly originName: string;
}

const FORMAT = 1;

/** No option lets a record count for longer than a week. */
const MAX_AGE_MS = 8 * 86_400_000;
const MAX_RECORDS = 1000;
const MAX_RECORD_BYTES = 4096;
const OTHERS_WRITE = 0o022;
const NAME = /^[0-9a-f]{32}\.json(?:\.[0-9a-f]{12}\.tmp)?$/;

/** The record of a pair; undefined if it is missing or damaged, or may be another user's. */
export function loadQuickRecord(pair: QuickPair): QuickRecord | undefined {
  try {
    const path = recordPath(pair);
    const stats = lstatSync(path);
    const isOurs = stats.isFile() && isOwn(stats.uid) && (stats.mode & OTHERS_WRITE) === 0;
    if (!isOurs || stats.size > MAX_RECORD_BYTES) return undefined;
    const { seal, ...content }: { seal?: unknown } = Object(JSON.parse(readFileSync(path, 'utf8'))) as object;
    return isRecord(content) && seal === sealOf(content) ? content : undefined;
  } catch {
    return undefined;
  }
}

/** Throws the system's errors; they only mean that the next run compares all pages. */
export function saveQuickRecord(pair: QuickPair, record: QuickRecord): void {
  const path = recordPath(pair);
  const temporary = `${path}.${randomBytes(6).toString('hex')}.tmp`;
  makePrivateFolder(userCacheFolder('quick'));
  try {
    const content = { format: FORMAT, ...record };
    const text = `${JSON.stringify({ ...content, seal: sealOf(content) })}\n`;
    writeFileSync(temporary, text, { mode: 0o600, flag: 'wx' });
    renameSync(temporary, path);
  } finally {
    rmSync(temporary, { force: true });
  }
  sweep(userCacheFolder('quick'));
}

function recordPath({ replicaPath, originName }: QuickPair): string {
  const digest = createHash('sha256')
    .update(JSON.stringify([replicaPath, originName]))
    .digest('hex');
  return join(userCacheFolder('quick'), `${digest.slice(0, 32)}.json`);
}

function sealOf(content: object): string {
  const entries = Object.entries(content).toSorted(([a], [b]) => (a < b ? -1 : 1));
  return createHash('sha256').update(JSON.stringify(entries)).digest('hex');
}

function isRecord(value: object): value is QuickRecord {
  const { format, originStamp, replicaStamp, hash, comparedAt, files } = value as Record<string, unknown>;
  const areTexts = [originStamp, replicaStamp, files].every((text) => typeof text === 'string');
  const isHash = typeof hash === 'string' && Object.hasOwn(HASH_ALGORITHMS, hash);
  return format === FORMAT && areTexts && isHash && typeof comparedAt === 'number';
}

/** Removes records that no run will use, and what killed runs left. Never throws: a later run tries again. */
function sweep(folder: string): void {
  try {
    const files = readdirSync(folder)
      .filter((name) => NAME.test(name))
      .map((name) => join(folder, name))
      .map((path) => ({ path, mtimeMs: lstatSync(path, { throwIfNoEntry: false })?.mtimeMs ?? 0 }))
      .toSorted((a, b) => b.mtimeMs - a.mtimeMs);
    const oldest = Date.now() - MAX_AGE_MS;
    for (const [i, { path, mtimeMs }] of files.entries())
      if (i >= MAX_RECORDS || mtimeMs < oldest) rmSync(path, { force: true });
  } catch {
    // The folder may be gone.
  }
}
