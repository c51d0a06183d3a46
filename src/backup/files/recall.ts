import { SqlsyncError } from '../../errors.ts';
import { decodeIndex } from '../packs/index-file.ts';
import type { IndexedPack } from '../packs/index-file.ts';
import { idOf, toHex } from '../packs/object-id.ts';
import { isMissing } from '../store-error.ts';
import type { StoreSnapshot } from '../types.ts';
import { isForgotten } from './forgotten-notes.ts';
import { decodeSnapshot } from './snapshot-record.ts';
import { assembleContents, MAX_JSON_BYTES } from './store-files.ts';
import type { StoreAccess, StoreContents } from './store-files.ts';

/** What an earlier run found in a store. */
export interface RememberedContents {
  /** Names of indexes. */
  readonly indexes: readonly string[];
  /** Ids of packs that nothing new may rely on. */
  readonly untrusted: readonly string[];
  /** When the lists were read. */
  readonly listed: Date;
}

/**
 * The contents of a store as an earlier run found them, without a request. A reader of them relies on nothing but what a
 * parent has. undefined if this host has no copy of an index.
 */
export function recallContents(
  access: StoreAccess,
  { indexes: names, untrusted, listed }: RememberedContents,
): StoreContents | undefined {
  const indexes = new Map<string, IndexedPack[]>();
  for (const name of names) {
    const packs = opened(() => {
      const file = `indexes/${name}`;
      const sealed = access.kept?.get(file);
      const { sealer } = access;
      return (
        sealed && decodeIndex(sealer.open({ kind: 'index', file }, sealed), file, sealer.scheme !== 'none')
      );
    });
    if (packs === undefined) return undefined;
    indexes.set(name, packs);
  }
  const packs = [...indexes.values()]
    .flat()
    .map(({ id, bytes }) => ({ name: toHex(id), bytes, modified: listed }));
  const packFiles = new Map(packs.map((file) => [file.name, file]));
  const lists = { marks: [], marked: new Set(untrusted), damagedPacks: new Set<string>(), packFiles };
  const began = { loadedAtMs: performance.now(), loadedTime: new Date() };
  return assembleContents(access, { indexes, ...lists, ...began }, true);
}

/** The record of a snapshot, from this host; undefined if it has no copy. */
export function recallSnapshot({ kept, sealer }: StoreAccess, id: string): StoreSnapshot | undefined {
  return opened(() => {
    const file = `snapshots/${id}`;
    const sealed = kept?.get(file);
    return sealed && decodeSnapshot(sealer.open({ kind: 'snapshot', file }, sealed), id);
  });
}

/**
 * What the store has of a snapshot at this moment: its record and no note that it was forgotten, or not, or a record that
 * was changed. Throws SqlsyncError STORE_UNAVAILABLE.
 */
export async function lookForSnapshot(
  access: StoreAccess,
  id: string,
): Promise<'there' | 'gone' | 'damaged'> {
  // In this order: a prune removes the note after the record.
  if (await isForgotten(access, id)) return 'gone';
  try {
    const record = await access.backend.get(`snapshots/${id}`, { offset: 0, length: MAX_JSON_BYTES + 1 });
    return toHex(idOf(record)) === id ? 'there' : 'damaged';
  } catch (error) {
    if (isMissing(error)) return 'gone';
    throw error;
  }
}

/** A copy that this version cannot read is as good as none. */
function opened<T>(open: () => T): T | undefined {
  try {
    return open();
  } catch (error) {
    if (error instanceof SqlsyncError) return undefined;
    throw error;
  }
}
