import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before } from 'node:test';
import type { Random } from '../../fixtures/random.ts';
import { MemoryBackend } from './memory-backend.ts';
import { change, smallDatabase } from '../pages/databases.ts';
import { pageImage } from '../support/compare.ts';
import { backupHere, storeHere } from './store-here.ts';
import type { StoreHere } from './store-here.ts';

/** What becomes of a file of a store; undefined means that it is gone. */
export type ApplyDamage = (bytes: Uint8Array, random: Random) => Uint8Array | undefined;

export const DAMAGES: Readonly<Record<string, ApplyDamage>> = {
  'a flipped bit': (bytes, random) => {
    const flipped = new Uint8Array(bytes);
    const at = random.integer(0, bytes.length - 1);
    flipped[at] = (flipped[at] as number) ^ (1 << random.integer(0, 7));
    return flipped;
  },
  'a file that was cut': (bytes, random) => bytes.slice(0, random.integer(0, bytes.length - 1)),
  'a file that is missing': () => undefined,
};

/** A store that is made once for all tests of a file, which damage copies of it. */
export interface StoreToDamage {
  /** For temporary files. */
  readonly folder: string;
  /** The databases. */
  readonly origins: readonly string[];
  /** By name. */
  readonly files: Map<string, Uint8Array>;
  /** The bytes that each snapshot must restore to, by its id. */
  readonly images: Map<string, Buffer>;
}

/**
 * Makes a store of three days of two databases; `finish` does the rest, such as to forget. Its files exist
 * when a test runs.
 */
export function storeToDamage(
  name: string,
  finish: (here: StoreHere, images: Map<string, Buffer>) => Promise<void>,
): StoreToDamage {
  const folder = mkdtempSync(join(tmpdir(), `sqlsync-${name}-`));
  const origins = ['a.db', 'b.db'].map((file) => join(folder, file));
  const files = new Map<string, Uint8Array>();
  const images = new Map<string, Buffer>();
  before(async () => {
    const memory = new MemoryBackend();
    const here = await storeHere(memory, folder);
    for (const [i, origin] of origins.entries()) smallDatabase(origin, { rows: 80, seed: i });
    for (let day = 0; day < 3; day++) {
      for (const origin of origins) {
        change(origin, `UPDATE item SET amount = ${day} WHERE id % 9 = ${day}`);
        const image = pageImage(origin);
        images.set((await backupHere(here, origin)).id, image);
      }
    }
    await finish(here, images);
    for (const [file, bytes] of memory.files) files.set(file, bytes);
  });
  after(() => rmSync(folder, { recursive: true, force: true }));
  return { folder, origins, files, images };
}
