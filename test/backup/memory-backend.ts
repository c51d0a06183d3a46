import type { ByteRange, LocalBackend, StoredFile, StoreFolder } from '../../src/backup/backends/backend.ts';
import { missingFile } from '../../src/backup/store-error.ts';

/** A store in memory. */
export class MemoryBackend implements LocalBackend {
  readonly description = 'memory';
  readonly files: Map<string, Uint8Array> = new Map();
  /** When each file was put. */
  readonly modified: Map<string, Date> = new Map();

  put(name: string, pieces: readonly Uint8Array[]): Promise<'created' | 'exists'> {
    if (this.files.has(name)) return Promise.resolve('exists');
    this.files.set(name, Buffer.concat(pieces));
    this.modified.set(name, new Date());
    return Promise.resolve('created');
  }

  replaceConfig(pieces: readonly Uint8Array[]): Promise<void> {
    this.files.set('config', Buffer.concat(pieces));
    return Promise.resolve();
  }

  get(name: string, range?: ByteRange): Promise<Uint8Array> {
    // An executor, so that a missing file rejects instead of throwing.
    return new Promise((resolve) => resolve(this.getNow(name, range)));
  }

  getNow(name: string, range?: ByteRange): Uint8Array {
    const file = this.files.get(name);
    if (file === undefined) throw missingFile(this.description, name);
    const { offset, length } = range ?? { offset: 0, length: file.length };
    // `slice` of a Buffer would be a view of it.
    return new Uint8Array(file.subarray(offset, offset + length));
  }

  list(folder: StoreFolder): Promise<StoredFile[]> {
    const prefix = `${folder}/`;
    const files = [...this.files]
      .filter(([name]) => name.startsWith(prefix))
      .map(([name, bytes]) => ({
        name: name.slice(prefix.length),
        bytes: bytes.length,
        modified: this.modified.get(name) ?? new Date(),
      }));
    return Promise.resolve(files);
  }

  delete(name: string): Promise<void> {
    this.files.delete(name);
    return Promise.resolve();
  }
}
