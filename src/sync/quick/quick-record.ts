import { createHash } from 'node:crypto';
import { lstatSync, readFileSync } from 'node:fs';
import { HASH_ALGORITHMS } from '../../../protocol/messages.ts';
import type { HashAlgorithm } from '../../../protocol/messages.ts';
import { CacheFolder, isTrusted } from './cache-folder.ts';

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

const MAX_RECORD_BYTES = 4096;
const FOLDER = new CacheFolder('quick', /^[0-9a-f]{32}\.json$/, { files: 10_000, bytes: Infinity });

/** The record of a pair; undefined if it is missing or damaged, or may be another user's. */
export function loadQuickRecord(pair: QuickPair): QuickRecord | undefined {
  try {
    const path = FOLDER.path(recordName(pair));
    const stats = lstatSync(path);
    if (!isTrusted(stats) || stats.size > MAX_RECORD_BYTES) return undefined;
    const { seal, ...content }: { seal?: unknown } = Object(JSON.parse(readFileSync(path, 'utf8'))) as object;
    return isRecord(content) && seal === sealOf(content) ? content : undefined;
  } catch {
    return undefined;
  }
}

/** Throws the system's errors; they only mean that the next run compares all pages. */
export function saveQuickRecord(pair: QuickPair, record: QuickRecord): void {
  const content = { format: FORMAT, ...record };
  const text = `${JSON.stringify({ ...content, seal: sealOf(content) })}\n`;
  FOLDER.save(recordName(pair), [Buffer.from(text)]);
}

function recordName({ replicaPath, originName }: QuickPair): string {
  const digest = createHash('sha256')
    .update(JSON.stringify([replicaPath, originName]))
    .digest('hex');
  return `${digest.slice(0, 32)}.json`;
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
