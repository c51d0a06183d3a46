import { SqlsyncError } from '../../errors.ts';
import type { Backend, StoredFile, StoreFolder } from '../backends/backend.ts';
import type { StoreConfig } from './config.ts';
import { discard } from '../packs/frame-memory.ts';
import { decodeIndex, MAX_INDEX_BYTES } from '../packs/index-file.ts';
import type { IndexedPack } from '../packs/index-file.ts';
import { idOf, isHexId, toHex } from '../packs/object-id.ts';
import { ObjectIndex } from '../objects/object-index.ts';
import { ObjectReader } from '../objects/object-reader.ts';
import type { SealedKind, Sealer } from '../packs/seal.ts';
import { decodeSnapshot } from './snapshot-record.ts';
import { inOrder } from './snapshot-order.ts';
import { Soundness } from '../objects/soundness.ts';
import { damaged } from '../store-error.ts';
import type { StoreSnapshot } from '../types.ts';

/** An open store's backend, and what its config says. */
export interface StoreAccess {
  readonly backend: Backend;
  readonly sealer: Sealer;
  readonly config: StoreConfig;
}

/** Packs that a prune means to delete. */
export interface Mark {
  /** Name of its file. */
  readonly id: string;
  readonly time: Date;
  readonly packs: readonly string[];
}

/** What a store held when it was loaded. */
export interface StoreContents {
  readonly index: ObjectIndex;
  readonly reader: ObjectReader;
  readonly marks: readonly Mark[];
  /** All packs that marks name, by id. */
  readonly marked: ReadonlySet<string>;
  /** What the index files say, by the names of the files. */
  readonly indexFiles: ReadonlyMap<string, readonly string[]>;
  /** The packs that are there, by id. */
  readonly packFiles: ReadonlyMap<string, StoredFile>;
  /** When loading began, by `performance.now`, which stands still while the system is suspended, and by the clock. */
  readonly loadedAtMs: number;
  readonly loadedTime: Date;
}

/** What to do with a file that cannot be read; by default its error is thrown. */
export type OnDamage = (file: string, error: SqlsyncError) => void;

/** A snapshot's record, a mark or what tells of a forgotten snapshot. */
export const MAX_JSON_BYTES: number = 1024 * 1024;

/** Sealed: a body that does not become smaller is not compressed. */
const MAX_INDEX_FILE_BYTES = MAX_INDEX_BYTES + 1024;

/** How often the indexes are listed again because a prune replaced some of them meanwhile. */
const MAX_LISTINGS = 32;

/**
 * Loads marks and indexes. A backup lists snapshots after that: so its parent was not forgotten when the marks were
 * read. All others list them before: so the indexes name all that a snapshot needs. Throws SqlsyncError STORE_*.
 */
export async function loadContents(
  access: StoreAccess,
  onDamage: OnDamage = throwIt,
): Promise<StoreContents> {
  const loadedAtMs = performance.now();
  const loadedTime = new Date();
  const marks = await loadMarks(access, onDamage);
  const marked = new Set(marks.flatMap(({ packs }) => packs));
  const index = new ObjectIndex();
  const { indexes, packFiles } = await loadIndexes(access, onDamage);
  const indexFiles = new Map([...indexes].map(([name, packs]) => [name, packs.map(({ id }) => toHex(id))]));
  const loaded = [...indexes.values()].flat();
  index.reserve(loaded.reduce((sum, pack) => sum + pack.depths.length, 0));
  for (const pack of loaded) addPack({ index, marked, packFiles }, pack);
  // All packs of a file are views of one body.
  for (const [first] of indexes.values()) if (first !== undefined) discard(first.ids);
  const reader = new ObjectReader(index, access.backend, access.sealer);
  const soundness = new Soundness(reader, (object) => {
    const pack = index.frameOf(object)?.pack;
    return pack === undefined || index.isReliable(pack);
  });
  index.judgeBy(soundness);
  return { index, reader, marks, marked, indexFiles, packFiles, loadedAtMs, loadedTime };
}

/**
 * What the index files say, by their names, and the packs that are there. A prune puts new indexes, then deletes those
 * that they replace, then packs; and who lists a folder meanwhile may see neither the old file nor the new one. So the
 * indexes are listed again until none came or went.
 */
async function loadIndexes(
  access: StoreAccess,
  onDamage: OnDamage,
): Promise<{ indexes: Map<string, IndexedPack[]>; packFiles: Map<string, StoredFile> }> {
  const indexes = new Map<string, IndexedPack[]>();
  const bad = new Map<string, SqlsyncError>();
  let listed = await access.backend.list('indexes');
  for (let listing = 1; ; listing++) {
    const there = new Set(listed.map(({ name }) => name));
    for (const known of [indexes, bad])
      for (const name of known.keys()) if (!there.has(name)) known.delete(name);
    const unread = listed.filter(({ name }) => !indexes.has(name) && !bad.has(name));
    const isLast = listing === MAX_LISTINGS;
    const options: ReadOptions = {
      onDamage: (file, error) => bad.set(file.slice('indexes/'.length), error),
      skipsMissing: !isLast,
    };
    await readFiles(access, unread, { folder: 'indexes', kind: 'index', ...options }, (plain, file, name) =>
      indexes.set(name, decodeIndex(plain, file)),
    );
    const packFiles = new Map((await access.backend.list('packs')).map((file) => [file.name, file]));
    listed = await access.backend.list('indexes');
    const now = listed.filter(({ name }) => isHexId(name));
    const isSame =
      now.length === indexes.size + bad.size && now.every(({ name }) => indexes.has(name) || bad.has(name));
    if (!isSame && !isLast) continue;
    for (const [name, error] of bad) onDamage(`indexes/${name}`, error);
    return { indexes, packFiles };
  }
}

/** Takes what is known of a pack that an index names, or is about to. */
export function addPack(
  { index, marked, packFiles }: Pick<StoreContents, 'index' | 'marked' | 'packFiles'>,
  pack: IndexedPack,
): void {
  const id = toHex(pack.id);
  // What is missing or cut is not relied upon either, so that the next backup writes it again.
  index.addPack(pack, { marked: marked.has(id), present: packFiles.get(id)?.bytes === pack.bytes });
}

/** One that goes meanwhile has done its work: what it marked was deleted. */
export async function loadMarks(access: StoreAccess, onDamage: OnDamage = throwIt): Promise<Mark[]> {
  const marks: Mark[] = [];
  await readAll(access, 'marks', 'mark', onDamage, (plain, file, id) => {
    const { time, packs } = parseJson(plain, file) as { time: string; packs: string[] };
    const at = new Date(time);
    if (Number.isNaN(at.getTime()) || !Array.isArray(packs) || !packs.every(isHexId))
      throw damaged(file, 'is no list of packs');
    marks.push({ id, time: at, packs });
  });
  return marks;
}

/** All snapshots in the order in which they were made, the oldest first. */
export async function loadSnapshots(
  access: StoreAccess,
  onDamage: OnDamage = throwIt,
): Promise<StoreSnapshot[]> {
  const snapshots: StoreSnapshot[] = [];
  await readAll(access, 'snapshots', 'snapshot', onDamage, (plain, _, id) =>
    snapshots.push(decodeSnapshot(plain, id)),
  );
  return inOrder(snapshots);
}

/**
 * Puts a small record under the hash of its bytes; returns that name. Throws SqlsyncError USAGE if it is too long,
 * STORE_*.
 */
export async function putRecord(
  access: StoreAccess,
  folder: StoreFolder,
  kind: SealedKind,
  plain: Uint8Array,
): Promise<string> {
  const sealed = access.sealer.seal(kind, plain);
  if (sealed.length > MAX_JSON_BYTES)
    throw new SqlsyncError('USAGE', `A record of ${sealed.length} bytes; the most are ${MAX_JSON_BYTES}`, {
      hint: 'Give fewer or shorter tags.',
    });
  const name = toHex(idOf(sealed));
  await access.backend.put(`${folder}/${name}`, [sealed]);
  return name;
}

export function jsonBytes(value: unknown): Uint8Array {
  return new TextEncoder().encode(JSON.stringify(value));
}

interface ReadOptions {
  readonly onDamage: OnDamage;
  /** Whether a file that is gone when it is read is left out. */
  readonly skipsMissing: boolean;
}

type Take = (plain: Uint8Array, file: string, name: string) => void;

/** Reads every file of a folder whose names are hashes, but those that go meanwhile. */
async function readAll(
  access: StoreAccess,
  folder: StoreFolder,
  kind: SealedKind,
  onDamage: OnDamage,
  take: Take,
): Promise<void> {
  const files = await access.backend.list(folder);
  await readFiles(access, files, { folder, kind, onDamage, skipsMissing: true }, take);
}

/** Reads those of these files whose names are hashes, and checks each against its name. */
async function readFiles(
  { backend, sealer }: StoreAccess,
  files: readonly StoredFile[],
  { folder, kind, ...options }: ReadOptions & { readonly folder: StoreFolder; readonly kind: SealedKind },
  take: Take,
): Promise<void> {
  for (const { name, bytes } of files.toSorted((a, b) => (a.name < b.name ? -1 : 1))) {
    const file = `${folder}/${name}`;
    if (!isHexId(name)) continue;
    try {
      const most = kind === 'index' ? MAX_INDEX_FILE_BYTES : MAX_JSON_BYTES;
      if (bytes > most) throw damaged(file, `has ${bytes} bytes; the most are ${most}`);
      const sealed = await backend.get(file);
      if (toHex(idOf(sealed)) !== name) throw damaged(file, 'was changed or cut since it was written');
      take(sealer.open(kind, sealed), file, name);
    } catch (error) {
      if (options.skipsMissing && isMissing(error)) continue;
      if (!(error instanceof SqlsyncError) || error.code === 'STORE_UNAVAILABLE') throw error;
      options.onDamage(file, error);
    }
  }
}

function parseJson(plain: Uint8Array, file: string): unknown {
  try {
    const parsed: unknown = JSON.parse(new TextDecoder().decode(plain));
    if (typeof parsed === 'object' && parsed !== null) return parsed;
  } catch (error) {
    throw damaged(file, 'cannot be read', error);
  }
  throw damaged(file, 'is no record');
}

function isMissing(error: unknown): boolean {
  return error instanceof SqlsyncError && error.code === 'STORE_FILE_MISSING';
}

function throwIt(_file: string, error: SqlsyncError): void {
  throw error;
}
