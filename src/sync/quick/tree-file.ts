import { createHash } from 'node:crypto';
import { closeSync, constants, fstatSync, openSync } from 'node:fs';
import { TREE_FANOUT } from '../../../protocol/limits.ts';
import { HASH_ALGORITHMS } from '../../../protocol/messages.ts';
import type { HashAlgorithm } from '../../../protocol/messages.ts';
import { readFully } from '../../files/read-fully.ts';
import { HASH_KEY_BYTES } from '../../pages/hash.ts';
import { CacheFolder, isTrusted } from './cache-folder.ts';

/** What the hashes of a cached tree are of. */
export interface TreeHead {
  /** The key of the hashes, hexadecimal. */
  readonly key: string;
  readonly hash: HashAlgorithm;
  /** When the first snapshot under this key was hashed whole, in milliseconds since 1970. */
  readonly hashedAt: number;
  readonly pageSize: number;
  readonly pageCount: number;
  /** The level of the nodes that have a hash here. */
  readonly level: number;
  /** What the state of the database is recognized by; '' if by nothing: then there are no hashes. */
  readonly state: string;
}

export interface StoredTree extends TreeHead {
  readonly hashes: Uint8Array;
}

/** One database: the side and real path of it, and what distinguishes the trees of one database. */
export interface TreePlace {
  readonly side: 'origin' | 'replica';
  readonly path: string;
  readonly other: string;
}

/** Room for four databases of the largest tree that is kept in memory. */
const FOLDER = new CacheFolder('trees', /^[or]-[0-9a-f]{24}-[0-9a-f]{24}$/, { files: 100, bytes: 2 ** 28 });

/** Trees of one database: a replica agent of an older version takes another key each time. */
const MAX_TREES = 8;

/**
 * A file is MAGIC, the length of the head, the head as JSON, a seal of these, the hashes, and a seal of all before. A
 * seal is a SHA-256. It need not be durable: nothing in it counts after another start of the kernel.
 */
const MAGIC = Buffer.from('SQLSYNT1');
const LENGTH_BYTES = 4;
const SEAL_BYTES = 32;
const MAX_HEAD_BYTES = 65_536;

/** The head of the tree in this place; undefined if the file is missing or damaged, or may be another user's. */
export function loadTreeHead(place: TreePlace): TreeHead | undefined {
  return withFile(nameOf(place), (file) => readHead(file).head);
}

/** When the tree in this place was kept, in milliseconds since 1970; 0 if it is missing. */
export function treeTime(place: TreePlace): number {
  return withFile(nameOf(place), (file) => fstatSync(file).mtimeMs) ?? 0;
}

/** As `loadTreeHead`, with the hashes, of `hashBytes` each. */
export function loadTree(place: TreePlace, hashBytes: number): StoredTree | undefined {
  return withFile(nameOf(place), (file) => readTree(file, hashBytes));
}

/** All trees of the database, the newest first. */
export function* loadTreesOf(
  place: Omit<TreePlace, 'other'>,
  hashBytesOf: (head: TreeHead) => number,
): IterableIterator<StoredTree> {
  for (const name of namesOf(place)) {
    const tree = withFile(name, (file) => readTree(file, hashBytesOf(readHead(file).head)));
    if (tree !== undefined) yield tree;
  }
}

/** Throws the system's errors; they only mean that the next run hashes all pages. */
export function saveTree(place: TreePlace, { hashes, ...head }: StoredTree): void {
  const text = Buffer.from(JSON.stringify(head));
  const start = Buffer.concat([MAGIC, lengthOf(text), text]);
  const headSeal = createHash('sha256').update(start).digest();
  const seal = createHash('sha256').update(start).update(headSeal).update(hashes).digest();
  FOLDER.save(nameOf(place), [start, headSeal, hashes, seal]);
  for (const name of namesOf(place).slice(MAX_TREES)) FOLDER.remove(name);
}

/** Keeps the tree in this place from being removed as the oldest. Never throws. */
export function touchTree(place: TreePlace): void {
  FOLDER.touch(nameOf(place));
}

/** Removes all trees of the database. Never throws. */
export function dropTreesOf(place: Omit<TreePlace, 'other'>): void {
  for (const name of namesOf(place)) FOLDER.remove(name);
}

function namesOf(place: Omit<TreePlace, 'other'>): string[] {
  try {
    return FOLDER.names(startOf(place)).filter((name) => !name.endsWith('.tmp'));
  } catch {
    return [];
  }
}

function withFile<T>(name: string, read: (file: number) => T | undefined): T | undefined {
  let file: number | undefined;
  try {
    file = openSync(FOLDER.path(name), constants.O_RDONLY | constants.O_NOFOLLOW);
    return isTrusted(fstatSync(file)) ? read(file) : undefined;
  } catch {
    return undefined;
  } finally {
    if (file !== undefined) closeSync(file);
  }
}

/** Throws if it is damaged. */
function readHead(file: number): { head: TreeHead; start: Buffer } {
  const prefix = readAt(file, 0, MAGIC.length + LENGTH_BYTES);
  const length = prefix.readUInt32LE(MAGIC.length);
  if (!prefix.subarray(0, MAGIC.length).equals(MAGIC) || length > MAX_HEAD_BYTES) throw damaged();
  const start = readAt(file, 0, prefix.length + length + SEAL_BYTES);
  const sealed = start.subarray(0, -SEAL_BYTES);
  if (!createHash('sha256').update(sealed).digest().equals(start.subarray(-SEAL_BYTES))) throw damaged();
  const head: unknown = JSON.parse(sealed.subarray(prefix.length).toString());
  if (!isHead(head)) throw damaged();
  return { head, start };
}

function readTree(file: number, hashBytes: number): StoredTree {
  const { head, start } = readHead(file);
  const nodes = head.state === '' ? 0 : Math.ceil(head.pageCount / TREE_FANOUT ** head.level);
  const bytes = readAt(file, start.length, nodes * hashBytes + SEAL_BYTES);
  const hashes = bytes.subarray(0, -SEAL_BYTES);
  const seal = createHash('sha256').update(start).update(hashes).digest();
  if (!seal.equals(bytes.subarray(-SEAL_BYTES))) throw damaged();
  return { ...head, hashes };
}

function readAt(file: number, at: number, length: number): Buffer {
  if (fstatSync(file).size < at + length) throw damaged();
  const bytes = Buffer.allocUnsafeSlow(length);
  if (readFully(file, bytes, at) < length) throw damaged();
  return bytes;
}

function damaged(): Error {
  return new Error('damaged');
}

function isHead(value: unknown): value is TreeHead {
  const head = Object(value) as Record<keyof TreeHead, unknown>;
  const numbers = [head.hashedAt, head.pageSize, head.pageCount, head.level];
  const isKey = typeof head.key === 'string' && /^[0-9a-f]*$/.test(head.key);
  return (
    isKey &&
    (head.key as string).length === 2 * HASH_KEY_BYTES &&
    typeof head.hash === 'string' &&
    Object.hasOwn(HASH_ALGORITHMS, head.hash) &&
    typeof head.state === 'string' &&
    numbers.every((number) => Number.isSafeInteger(number))
  );
}

function lengthOf(text: Buffer): Buffer {
  const bytes = Buffer.alloc(LENGTH_BYTES);
  bytes.writeUInt32LE(text.length);
  return bytes;
}

function startOf({ side, path }: Omit<TreePlace, 'other'>): string {
  return `${side === 'origin' ? 'o' : 'r'}-${shortDigest(path)}-`;
}

function nameOf(place: TreePlace): string {
  return startOf(place) + shortDigest(place.other);
}

function shortDigest(text: string): string {
  return createHash('sha256').update(text).digest('hex').slice(0, 24);
}
