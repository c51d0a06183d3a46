import { join } from 'node:path';
import type { Backend, ByteRange, LocalBackend, LocalFiles, StoredFile, StoreFolder } from './backend.ts';
import { DirectoryBackend } from './directory-backend.ts';
import { isOutOfSpace } from './out-of-space.ts';
import { makeTemporaryFolder, temporaryError } from '../../beside/temporary-folder.ts';
import { missingFile } from '../store-error.ts';

/**
 * Runs `work` on a store without changing it: new files go to a temporary folder of this host, which is removed
 * afterwards.
 */
export async function withTrialBackend<T>(
  store: { readonly backend: Backend; readonly files: LocalFiles },
  work: (trial: LocalBackend) => Promise<T>,
): Promise<T> {
  const folder = makeTemporaryFolder(0);
  try {
    return await work(
      new TrialBackend(store.backend, store.files, new DirectoryBackend(join(folder.path, 'added'))),
    );
  } finally {
    folder.remove();
  }
}

class TrialBackend implements LocalBackend {
  readonly description: string;
  readonly #store: Backend;
  readonly #files: LocalFiles;
  /** The files that were put since. */
  readonly #added: LocalBackend;
  readonly #addedNames = new Set<string>();
  readonly #deletedNames = new Set<string>();

  constructor(store: Backend, files: LocalFiles, added: LocalBackend) {
    this.description = store.description;
    this.#store = store;
    this.#files = files;
    this.#added = added;
  }

  async put(name: string, pieces: readonly Uint8Array[]): Promise<'created' | 'exists'> {
    if (this.#addedNames.has(name)) return 'exists';
    const [folder = '', file = ''] = name.split('/');
    const isThere = (await this.#store.list(folder as StoreFolder)).some((each) => each.name === file);
    if (isThere && !this.#deletedNames.has(name)) return 'exists';
    try {
      await this.#added.put(name, pieces);
    } catch (error) {
      // The store has room; only the folder for temporary files, which takes the files instead, is full.
      throw isOutOfSpace(error) ? temporaryError(error.cause, bytesOf(pieces)) : error;
    }
    this.#addedNames.add(name);
    return 'created';
  }

  async replaceConfig(pieces: readonly Uint8Array[]): Promise<void> {
    await this.#added.replaceConfig(pieces);
    this.#addedNames.add('config');
  }

  get(name: string, range?: ByteRange): Promise<Uint8Array> {
    if (this.#addedNames.has(name)) return this.#added.get(name, range);
    if (this.#deletedNames.has(name)) return Promise.reject(missingFile(this.description, name));
    return this.#store.get(name, range);
  }

  getNow(name: string, range?: ByteRange): Uint8Array {
    if (this.#addedNames.has(name)) return this.#added.getNow(name, range);
    if (this.#deletedNames.has(name)) throw missingFile(this.description, name);
    return this.#files.getNow(name, range);
  }

  async list(folder: StoreFolder): Promise<StoredFile[]> {
    const kept = (await this.#store.list(folder)).filter(
      ({ name }) => !this.#deletedNames.has(`${folder}/${name}`),
    );
    return [...kept, ...(await this.#added.list(folder))];
  }

  async delete(name: string): Promise<void> {
    if (!this.#addedNames.delete(name)) this.#deletedNames.add(name);
    else await this.#added.delete(name);
  }
}

function bytesOf(pieces: readonly Uint8Array[]): number {
  return pieces.reduce((sum, { length }) => sum + length, 0);
}
