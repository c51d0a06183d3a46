import { SqlsyncError } from '../../errors.ts';
import type { Backend, StoredFile, StoreFolder } from '../backends/backend.ts';
import type { StoreConfig } from './config.ts';
import { discard } from '../objects/frame-memory.ts';
import { decodeIndex, MAX_INDEX_BYTES } from './index-file.ts';
import type { IndexedPack } from './index-file.ts';
import { idOf, isHexId, toHex } from '../objects/object-id.ts';
import { ObjectIndex } from '../objects/object-index.ts';
import { ObjectReader } from '../objects/object-reader.ts';
import type { SealedKind, Sealer } from './seal.ts';
import { decodeSnapshot } from './snapshot-record.ts';
import { inOrder } from '../snapshots/snapshot-order.ts';
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

/** How often loading starts again because a prune deleted files between listing and reading them. */
const MAX_LOADS = 3;

/**
 * Loads marks and indexes. A backup lists snapshots after that: so its parent was not forgotten when the marks were read. All others
 * list them before: so the indexes name all that a snapshot needs. Throws SqlsyncError STORE_*.
 */
export async function loadContents(
  access: StoreAccess,
  onDamage: OnDamage = throwIt,
): Promise<StoreContents> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await load(access, onDamage, attempt === MAX_LOADS);
    } catch (error) {
      if (attempt < MAX_LOADS && isMissing(error)) continue;
      throw error;
    }
  }
}

async function load(access: StoreAccess, onDamage: OnDamage, isLast: boolean): Promise<StoreContents> {
  const loadedAtMs = performance.now();
  const loadedTime = new Date();
  const marks = await loadMarks(access, onDamage, isLast);
  const marked = new Set(marks.flatMap(({ packs }) => packs));
  const index = new ObjectIndex();
  const indexFiles = new Map<string, readonly string[]>();
  const loaded: IndexedPack[] = [];
  const bodies: Uint8Array[] = [];
  await readAll(access, 'indexes', 'index', { onDamage, isLast }, (plain, file, name) => {
    const packs = decodeIndex(plain, file);
    indexFiles.set(
      name,
      packs.map(({ id }) => toHex(id)),
    );
    loaded.push(...packs);
    // All packs of a file are views of one body.
    if (packs[0] !== undefined) bodies.push(packs[0].ids);
  });
  const packFiles = new Map((await access.backend.list('packs')).map((file) => [file.name, file]));
  index.reserve(loaded.reduce((sum, pack) => sum + pack.depths.length, 0));
  for (const pack of loaded) addPack({ index, marked, packFiles }, pack);
  for (const ids of bodies) discard(ids);
  const reader = new ObjectReader(index, access.backend, access.sealer);
  const soundness = new Soundness(reader, (object) => {
    const pack = index.frameOf(object)?.pack;
    return pack === undefined || index.isReliable(pack);
  });
  index.judgeBy(soundness);
  return { index, reader, marks, marked, indexFiles, packFiles, loadedAtMs, loadedTime };
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

export async function loadMarks(
  access: StoreAccess,
  onDamage: OnDamage = throwIt,
  isLast = true,
): Promise<Mark[]> {
  const marks: Mark[] = [];
  await readAll(access, 'marks', 'mark', { onDamage, isLast }, (plain, file, id) => {
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
  await readAll(
    access,
    'snapshots',
    'snapshot',
    { onDamage, isLast: false, skipsMissing: true },
    (plain, _, id) => snapshots.push(decodeSnapshot(plain, id)),
  );
  return inOrder(snapshots);
}

/** Puts a small record under the hash of its bytes; returns that name. Throws SqlsyncError USAGE where it is too long, STORE_*. */
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
  /** A file that vanishes meanwhile is damage now, and no reason to try again. */
  readonly isLast: boolean;
  readonly skipsMissing?: boolean;
}

/** Reads every file of a folder whose names are hashes, and checks it against its name. */
async function readAll(
  { backend, sealer }: StoreAccess,
  folder: StoreFolder,
  kind: SealedKind,
  options: ReadOptions,
  take: (plain: Uint8Array, file: string, name: string) => void,
): Promise<void> {
  const files: StoredFile[] = await backend.list(folder);
  for (const { name, bytes } of files.sort((a, b) => (a.name < b.name ? -1 : 1))) {
    const file = `${folder}/${name}`;
    if (!isHexId(name)) continue;
    try {
      const most = kind === 'index' ? MAX_INDEX_FILE_BYTES : MAX_JSON_BYTES;
      if (bytes > most) throw damaged(file, `has ${bytes} bytes; the most are ${most}`);
      const sealed = await backend.get(file);
      if (toHex(idOf(sealed)) !== name) throw damaged(file, 'was changed or cut since it was written');
      take(sealer.open(kind, sealed), file, name);
    } catch (error) {
      if (options.skipsMissing === true && isMissing(error)) continue;
      if (isMissing(error) && !options.isLast) throw error;
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
