import { SqlsyncError } from '../../errors.ts';
import type { Backend, LocalFiles, StoredFile, StoreFolder } from '../backends/backend.ts';
import type { KeptFiles } from '../backends/kept-files.ts';
import type { StoreConfig } from './config.ts';
import { discard } from '../packs/frame-memory.ts';
import { decodeIndex, MAX_INDEX_BYTES } from '../packs/index-file.ts';
import type { IndexedPack } from '../packs/index-file.ts';
import { BASE_ID_BYTES, idOf, isHexId, toHex } from '../packs/object-id.ts';
import { ObjectIndex } from '../objects/object-index.ts';
import { ObjectReader } from '../objects/object-reader.ts';
import type { StoreMemory } from '../keys/known-stores.ts';
import type { Unlocked } from '../keys/store-keys.ts';
import type { SealedKind, Sealer } from '../sealed/sealer.ts';
import { withoutForgotten } from './forgotten-notes.ts';
import { noticeOlderState } from './older-state.ts';
import { decodeSnapshot } from './snapshot-record.ts';
import { inOrder } from './snapshot-order.ts';
import { damaged, isMissing, StoreDamage } from '../store-error.ts';
import type { StoreSnapshot } from '../types.ts';

/** The backend and config of an open store. */
export interface StoreAccess {
  readonly backend: Backend;
  /** Where packs are read. */
  readonly files: LocalFiles;
  readonly sealer: Sealer;
  readonly config: StoreConfig;
  /** Copies on this host of files that never change; undefined to read the store itself. */
  readonly kept?: KeptFiles | undefined;
  /** The master key; undefined in a store that is not encrypted. */
  readonly unlocked?: Unlocked | undefined;
  /** What this host remembers of an encrypted store. */
  readonly memory?: StoreMemory | undefined;
}

/** Packs that a prune intends to delete. */
export interface Mark {
  /** Name of its file. */
  readonly id: string;
  /** When its file was put, by the clock of the place. */
  readonly time: Date;
  readonly packs: readonly string[];
}

/** The contents of a store when it was loaded. */
export interface StoreContents {
  readonly index: ObjectIndex;
  readonly reader: ObjectReader;
  readonly marks: readonly Mark[];
  /** All packs that marks name, by id. */
  readonly marked: ReadonlySet<string>;
  /** Packs that were found damaged, by id. */
  readonly damagedPacks: ReadonlySet<string>;
  /** The packs that each index file names, by the name of the index file. */
  readonly indexFiles: ReadonlyMap<string, readonly string[]>;
  /** The existing packs, by id. */
  readonly packFiles: ReadonlyMap<string, StoredFile>;
  /** When loading began: by `performance.now`, which stands still while the system is suspended, and by the clock. */
  readonly loadedAtMs: number;
  readonly loadedTime: Date;
}

/** Handles a file that cannot be read; by default its error is thrown. */
export type OnDamage = (file: string, error: SqlsyncError) => void;

/** The limit for a snapshot's record, a mark, or a note on a forgotten snapshot. */
export const MAX_JSON_BYTES: number = 1024 * 1024;

/** Sealed: a body that does not shrink is not compressed. */
const MAX_INDEX_FILE_BYTES = MAX_INDEX_BYTES + 1024;

/** How often the indexes are listed again after a prune replaced some of them meanwhile. */
const MAX_LISTINGS = 32;

/**
 * Loads marks and indexes. A backup lists snapshots afterwards: so its parent was not forgotten when the marks were
 * read. All others list them before: so the indexes name everything that a snapshot needs. Throws SqlsyncError STORE_*.
 *
 * @param damagedPacks - the ids of packs that nothing new may rely on.
 */
export async function loadContents(
  access: StoreAccess,
  onDamage: OnDamage = throwIt,
  damagedPacks: ReadonlySet<string> = new Set(),
): Promise<StoreContents> {
  const loadedAtMs = performance.now();
  const loadedTime = new Date();
  const marks = await loadMarks(access, onDamage);
  const marked = new Set(marks.flatMap(({ packs }) => packs));
  const { indexes, packFiles } = await loadIndexes(access, onDamage);
  return assembleContents(access, {
    indexes,
    packFiles,
    marks,
    marked,
    damagedPacks,
    loadedAtMs,
    loadedTime,
  });
}

/**
 * The contents of a store from its decoded indexes, by name, whose bodies it takes over.
 *
 * @param reliesOnParent - true if the lists are not those of this moment: see `ObjectReader`.
 */
export function assembleContents(
  access: StoreAccess,
  {
    indexes,
    ...lists
  }: Omit<StoreContents, 'index' | 'reader' | 'indexFiles'> & {
    readonly indexes: ReadonlyMap<string, readonly IndexedPack[]>;
  },
  reliesOnParent = false,
): StoreContents {
  const index = new ObjectIndex();
  const indexFiles = new Map([...indexes].map(([name, packs]) => [name, packs.map(({ id }) => toHex(id))]));
  const loaded = [...indexes.values()].flat();
  const objects = loaded.reduce((sum, { depths }) => sum + depths.length, 0);
  const baseBytes = loaded.reduce((sum, { bases }) => sum + bases.length, 0);
  index.reserve(objects, baseBytes / BASE_ID_BYTES);
  for (const pack of loaded) addPack({ index, ...lists }, pack);
  // All packs of a file are views of one body.
  for (const [first] of indexes.values()) if (first !== undefined) discard(first.ids);
  const reader = new ObjectReader(index, access, reliesOnParent);
  return { ...lists, index, reader, indexFiles };
}

/**
 * The packs that index files name, by file, and the existing packs. A prune puts new indexes, then deletes the indexes
 * that they replace, then packs. A process that lists the folder meanwhile may see neither the old file nor the new
 * one. So this lists the indexes again until none came or went.
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
      onMissing: isLast ? undefined : () => {},
    };
    await readFiles(
      access,
      unread,
      { folder: 'indexes', kind: 'index', ...options },
      (plain, file, { name }) => indexes.set(name, decodeIndex(plain, file, access.sealer.scheme !== 'none')),
    );
    // Other programs leave files there too, such as .DS_Store.
    const packs = (await access.backend.list('packs')).filter(({ name }) => isHexId(name));
    const packFiles = new Map(packs.map((file) => [file.name, file]));
    listed = await access.backend.list('indexes');
    const now = listed.filter(({ name }) => isHexId(name));
    const isSame =
      now.length === indexes.size + bad.size && now.every(({ name }) => indexes.has(name) || bad.has(name));
    if (!isSame && !isLast) continue;
    for (const [name, error] of bad) onDamage(`indexes/${name}`, error);
    return { indexes, packFiles };
  }
}

/** Adds a pack that an index names, or is about to name. */
export function addPack(
  {
    index,
    marked,
    damagedPacks,
    packFiles,
  }: Pick<StoreContents, 'index' | 'marked' | 'damagedPacks' | 'packFiles'>,
  pack: IndexedPack,
): void {
  const id = toHex(pack.id);
  const present = packFiles.get(id)?.bytes === pack.bytes;
  // The next backup writes what it needs of an untrusted pack again.
  index.addPack(pack, { present, trusted: present && !marked.has(id) && !damagedPacks.has(id) });
}

/** The names of the files in a folder of the store. */
export async function namesIn({ backend }: StoreAccess, folder: StoreFolder): Promise<Set<string>> {
  return new Set((await backend.list(folder)).map(({ name }) => name));
}

/** The names of the snapshots: a note in `forgotten` alone takes one away. */
export async function snapshotNames(access: StoreAccess): Promise<Set<string>> {
  return new Set((await snapshotFiles(access)).map(({ name }) => name));
}

async function snapshotFiles(access: StoreAccess): Promise<StoredFile[]> {
  // In this order: see `loadSnapshots`.
  const noted = await namesIn(access, 'forgotten');
  return withoutForgotten(access, await access.backend.list('snapshots'), noted);
}

/** Loads the marks. One that goes meanwhile has done its work: its packs were deleted. */
export async function loadMarks(access: StoreAccess, onDamage: OnDamage = throwIt): Promise<Mark[]> {
  const marks: Mark[] = [];
  const listed = await access.backend.list('marks');
  await readAll(access, listed, { folder: 'marks', kind: 'mark', onDamage }, (plain, file, stored) => {
    const { packs } = parseJson(plain, file) as { packs: string[] };
    if (!Array.isArray(packs)) throw damaged(file, 'is no list of packs');
    // Older programs marked files of other programs too.
    marks.push({ id: stored.name, time: stored.modified, packs: packs.filter(isHexId) });
  });
  return marks;
}

/**
 * All snapshots in the order in which they were made, the oldest first. A note in `forgotten` alone takes one away: the
 * deletion of its record may have failed, or a put of the record that was held up may have come after it.
 *
 * A new snapshot may rely on one that goes at this moment: see docs/store-format.md, "Backup without lists". So this
 * lists the notes first, and all again if a record is gone when it is read. One that is listed again after that did not
 * go: it counts as damaged.
 */
export async function loadSnapshots(
  access: StoreAccess,
  onDamage: OnDamage = throwIt,
): Promise<StoreSnapshot[]> {
  const snapshots = new Map<string, StoreSnapshot>();
  const bad = new Map<string, SqlsyncError>();
  const missed = new Set<string>();
  for (let isComplete = false; !isComplete;) {
    isComplete = true;
    const listed = await snapshotFiles(access);
    const there = new Set(listed.map(({ name }) => name));
    for (const known of [snapshots, bad]) for (const id of known.keys()) if (!there.has(id)) known.delete(id);
    const unread = listed.filter(({ name }) => !snapshots.has(name) && !bad.has(name));
    const onMissing = ({ name }: StoredFile): void => {
      missed.add(name);
      isComplete = false;
    };
    const take: Take = (plain, _, { name, modified }) => {
      const stored = isKnown(modified) ? { stored: modified } : {};
      snapshots.set(name, { ...decodeSnapshot(plain, name), ...stored });
    };
    const options: ReadOptions & Folder = {
      folder: 'snapshots',
      kind: 'snapshot',
      onDamage: (file, error) => bad.set(file.slice('snapshots/'.length), error),
    };
    const [again, first] = [true, false].map((is) => unread.filter(({ name }) => missed.has(name) === is));
    await readFiles(access, again ?? [], options, take);
    await readFiles(access, first ?? [], { ...options, onMissing }, take);
  }
  for (const [id, error] of bad) onDamage(`snapshots/${id}`, error);
  const ordered = inOrder([...snapshots.values()]);
  await noticeOlderState(access, ordered);
  return ordered;
}

/**
 * Puts a small record under the hash of its bytes; returns that name. Throws SqlsyncError USAGE if it is too long, and
 * STORE_*.
 */
export async function putRecord(
  access: StoreAccess,
  folder: StoreFolder,
  kind: SealedKind,
  plain: Uint8Array,
): Promise<string> {
  const sealed = access.sealer.seal({ kind }, plain);
  if (sealed.length > MAX_JSON_BYTES)
    throw new SqlsyncError('USAGE', `A record of ${sealed.length} bytes; the most are ${MAX_JSON_BYTES}`, {
      hint: 'Give fewer or shorter tags.',
    });
  const name = toHex(idOf(sealed));
  await access.backend.put(`${folder}/${name}`, [sealed]);
  access.kept?.add(`${folder}/${name}`, [sealed]);
  return name;
}

export function jsonBytes(value: unknown): Uint8Array {
  return new TextEncoder().encode(JSON.stringify(value));
}

interface ReadOptions {
  readonly onDamage: OnDamage;
  /** Gets a file that was deleted since it was listed; by default it counts as damage. */
  readonly onMissing?: ((file: StoredFile) => void) | undefined;
}

interface Folder {
  readonly folder: StoreFolder;
  readonly kind: SealedKind;
}

type Take = (plain: Uint8Array, file: string, stored: StoredFile) => void;

/**
 * Reads every file whose name is a hash, except those that go meanwhile. A file that is missing and is listed again
 * after that did not go: what it needs must not count as garbage.
 */
async function readAll(
  access: StoreAccess,
  listed: readonly StoredFile[],
  options: Folder & Pick<ReadOptions, 'onDamage'>,
  take: Take,
): Promise<void> {
  const missing: StoredFile[] = [];
  await readFiles(access, listed, { ...options, onMissing: (file) => missing.push(file) }, take);
  if (missing.length === 0) return;
  const there = await namesIn(access, options.folder);
  const still = missing.filter(({ name }) => there.has(name));
  await readFiles(access, still, options, take);
}

/** Reads the files whose names are hashes, and checks each against its name. */
async function readFiles(
  { backend, sealer, kept }: StoreAccess,
  files: readonly StoredFile[],
  { folder, kind, onDamage, onMissing }: ReadOptions & Folder,
  take: Take,
): Promise<void> {
  const most = kind === 'index' ? MAX_INDEX_FILE_BYTES : MAX_JSON_BYTES;
  const read = ({ name, bytes }: StoredFile): Promise<Uint8Array> => {
    const file = `${folder}/${name}`;
    if (bytes > most) return Promise.reject(damaged(file, `has ${bytes} bytes; the most are ${most}`));
    return getKept(file);
  };
  const getKept = async (file: string): Promise<Uint8Array> => {
    const known = kept?.get(file);
    if (known !== undefined) return known;
    const bytes = await backend.get(file, { offset: 0, length: most + 1 });
    // A wrong copy would stay wrong.
    if (toHex(idOf(bytes)) === file.slice(folder.length + 1)) kept?.add(file, [bytes]);
    return bytes;
  };
  const named = files.filter(({ name }) => isHexId(name)).toSorted((a, b) => (a.name < b.name ? -1 : 1));
  for await (const [stored, reading] of readSeveral(named, backend.parallel ?? 1, read)) {
    const file = `${folder}/${stored.name}`;
    try {
      const sealed = await reading;
      if (toHex(idOf(sealed)) !== stored.name) throw damaged(file, 'was changed or cut since it was written');
      take(sealer.open({ kind, file }, sealed), file, stored);
    } catch (error) {
      if (onMissing !== undefined && isMissing(error)) {
        onMissing(stored);
        continue;
      }
      if (!(error instanceof StoreDamage)) throw error;
      onDamage(file, error);
    }
  }
}

/** Bytes that are read at the same time. */
const MAX_READING_BYTES: number = 16 * 1024 * 1024;

/** Reads files in their order, several at once. Yields each when it is read or has failed. */
async function* readSeveral(
  files: readonly StoredFile[],
  most: number,
  read: (file: StoredFile) => Promise<Uint8Array>,
): AsyncGenerator<[StoredFile, Promise<Uint8Array>]> {
  const underWay: [StoredFile, Promise<Uint8Array>][] = [];
  let bytes = 0;
  for (const file of files) {
    while (underWay.length > 0 && (underWay.length >= most || bytes + file.bytes > MAX_READING_BYTES)) {
      const [first] = underWay.splice(0, 1) as [[StoredFile, Promise<Uint8Array>]];
      yield first;
      bytes -= first[0].bytes;
    }
    const reading = read(file);
    // Its reader gets the error later; until then it must not count as unhandled.
    reading.catch(() => {});
    underWay.push([file, reading]);
    bytes += file.bytes;
  }
  yield* underWay;
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

function isKnown(time: Date): boolean {
  return !Number.isNaN(time.getTime());
}

function throwIt(_file: string, error: SqlsyncError): void {
  throw error;
}
