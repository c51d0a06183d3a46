import type { ByteRange, LocalBackend, StoredFile, StoreFolder } from '../../src/backup/backends/backend.ts';

/** A real backend whose files have the times of the test's own clock, for tests in which days pass in a moment. */
export class ClockedBackend implements LocalBackend {
  readonly description: string;
  readonly parallel: number;
  readonly #backend: LocalBackend;
  readonly #modified = new Map<string, Date>();

  constructor(backend: LocalBackend) {
    this.#backend = backend;
    this.description = backend.description;
    this.parallel = backend.parallel ?? 1;
  }

  async put(name: string, pieces: readonly Uint8Array[]): Promise<'created' | 'exists'> {
    const outcome = await this.#backend.put(name, pieces);
    if (outcome === 'created') this.#modified.set(name, new Date());
    return outcome;
  }

  replaceConfig(pieces: readonly Uint8Array[]): Promise<void> {
    return this.#backend.replaceConfig(pieces);
  }

  get(name: string, range?: ByteRange): Promise<Uint8Array> {
    return this.#backend.get(name, range);
  }

  getNow(name: string, range?: ByteRange): Uint8Array {
    return this.#backend.getNow(name, range);
  }

  expect(name: string, range: ByteRange): boolean {
    return this.#backend.expect?.(name, range) ?? true;
  }

  async list(folder: StoreFolder): Promise<StoredFile[]> {
    const files = await this.#backend.list(folder);
    return files.map(({ name, bytes }) => {
      return { name, bytes, modified: this.#modified.get(`${folder}/${name}`) ?? new Date() };
    });
  }

  delete(name: string): Promise<void> {
    return this.#backend.delete(name);
  }
}
