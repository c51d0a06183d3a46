import { createHash } from 'node:crypto';
import { setImmediate } from 'node:timers/promises';
import { SqlsyncError } from '../errors.ts';
import { orderByRoot } from './check-order.ts';
import { Damage } from './damage.ts';
import { discard } from './frame-memory.ts';
import type { KnownPack } from './object-index.ts';
import { StoreDamage, throwIfAborted } from './store-error.ts';
import { loadContents, loadSnapshots } from './store-files.ts';
import type { StoreAccess, StoreContents } from './store-files.ts';
import type { CheckOptions, CheckProblem, CheckSummary, StoreSnapshot } from './types.ts';

/** Looks for damage: see docs/store-format.md, "Check". Throws SqlsyncError STORE_UNAVAILABLE, INTERRUPTED. */
export async function checkStore(access: StoreAccess, options: CheckOptions): Promise<CheckSummary> {
  const problems: CheckProblem[] = [];
  const report = (file: string, error: Error): void => void problems.push({ file, message: error.message });
  const snapshots = await loadSnapshots(access, report);
  const contents = await loadContents(access, report);
  const check = new StoreCheck(access, contents, problems, options);
  check.lookAtPacks();
  await check.readPacks();
  await reportMissing(access, snapshots, problems);
  const damage = new Damage(contents.reader, check.bad, options.readData === true);
  const damaged: { snapshot: StoreSnapshot; pagesLost: number }[] = [];
  const intact: StoreSnapshot[] = [];
  for (const [done, snapshot] of snapshots.entries()) {
    throwIfAborted(options.signal);
    options.onProgress?.({ phase: 'read', done, total: snapshots.length });
    const pagesLost = damage.lostPages(snapshot);
    if (pagesLost > 0) damaged.push({ snapshot, pagesLost });
    else intact.push(snapshot);
  }
  if (problems.length === 0) {
    for (const { snapshot, pagesLost } of damaged) {
      const message = `snapshot ${snapshot.id} needs ${pagesLost} pages of which no index names all that they are made of`;
      problems.push({ file: `snapshots/${snapshot.id}`, message });
    }
  }
  return { problems, damaged, intact, packsRead: check.packsRead, bytesRead: check.bytesRead };
}

/** What is read of a pack at once. */
const PIECE_BYTES = 1024 * 1024;

/** Objects between two moments at which a signal can arrive. */
const OBJECTS_PER_TURN = 4096;

class StoreCheck {
  /** By number of object: 1 for a copy that cannot be read. */
  readonly bad: Uint8Array;
  packsRead = 0;
  bytesRead = 0;
  readonly #access: StoreAccess;
  readonly #contents: StoreContents;
  readonly #problems: CheckProblem[];
  readonly #options: CheckOptions;
  #page: Uint8Array = new Uint8Array(0);

  constructor(access: StoreAccess, contents: StoreContents, problems: CheckProblem[], options: CheckOptions) {
    this.#access = access;
    this.#contents = contents;
    this.#problems = problems;
    this.#options = options;
    this.bad = new Uint8Array(contents.index.objectCount);
  }

  /** Presence and length of every pack that an index names. */
  lookAtPacks(): void {
    const { index, packFiles } = this.#contents;
    for (const pack of index.packs.values()) {
      if (pack.present) continue;
      const bytes = packFiles.get(pack.id)?.bytes;
      const message = bytes === undefined ? 'is missing' : `has ${bytes} bytes instead of ${pack.bytes}`;
      this.#problems.push({ file: `packs/${pack.id}`, message: `packs/${pack.id} in the store ${message}` });
      for (let number = pack.firstFrame; number < pack.firstFrame + pack.frameCount; number++) {
        const frame = index.frames[number] as (typeof index.frames)[number];
        if (frame.offset + frame.length > (bytes ?? 0))
          this.bad.fill(1, frame.firstObject, frame.firstObject + frame.objectCount);
      }
    }
  }

  /** Every byte of the packs that are to be read. */
  async readPacks(): Promise<void> {
    const { readData, readDataSubset, signal, onProgress } = this.#options;
    if (readData !== true && readDataSubset === undefined) return;
    const { n, m } = readData === true || readDataSubset === undefined ? { n: 1, m: 1 } : readDataSubset;
    const packs = [...this.#contents.index.packs.values()].sort((a, b) => (a.id < b.id ? -1 : 1));
    const chosen = packs.filter((_, i) => i % m === n - 1);
    const there = chosen.filter(({ id }) => this.#contents.packFiles.has(id));
    for (const [done, pack] of there.entries()) {
      throwIfAborted(signal);
      onProgress?.({ phase: 'read', done, total: there.length });
      await this.#comparePack(pack);
    }
    await this.#putTogether(there);
  }

  /** A pack with its name, in pieces: packs are of up to 2 GiB. */
  async #comparePack(pack: KnownPack): Promise<void> {
    const file = `packs/${pack.id}`;
    try {
      const digest = createHash('sha256');
      let read = 0;
      for (let length = PIECE_BYTES; length === PIECE_BYTES;) {
        const piece = await this.#access.backend.get(file, { offset: read, length: PIECE_BYTES });
        digest.update(piece);
        length = piece.length;
        read += length;
        discard(piece);
      }
      this.packsRead++;
      this.bytesRead += read;
      if (pack.present && digest.digest('hex') !== pack.id)
        this.#problems.push({ file, message: `${file} in the store was changed since it was written` });
    } catch (error) {
      this.#take(error, file);
    }
  }

  /** Every object in these packs. */
  async #putTogether(packs: readonly KnownPack[]): Promise<void> {
    const { index, reader } = this.#contents;
    const order = orderByRoot(reader, packs);
    for (const [done, object] of order.entries()) {
      if (done % OBJECTS_PER_TURN === 0) {
        await setImmediate();
        throwIfAborted(this.#options.signal);
        this.#options.onProgress?.({ phase: 'read', done, total: order.length });
      }
      if (this.bad[object] === 1) continue;
      try {
        reader.checkObject(object, (size) => this.#scratch(size));
      } catch (error) {
        this.bad[object] = 1;
        this.#take(error, `packs/${index.frameOf(object)?.pack.id ?? ''}`);
      }
    }
  }

  /** One problem a file is enough. */
  #take(error: unknown, file: string): void {
    if (!(error instanceof SqlsyncError)) throw error;
    // Garbage may have lost its base; where a snapshot needs it, that is told of the snapshot.
    if (error instanceof StoreDamage && error.file === 'indexes') return;
    const named = error instanceof StoreDamage && error.file.includes('/') ? error.file : file;
    if (this.#problems.some((problem) => problem.file === named)) return;
    this.#problems.push({ file: named, message: error.message });
  }

  #scratch(size: number): Uint8Array {
    if (this.#page.length !== size) this.#page = new Uint8Array(size);
    return this.#page;
  }
}

/** A snapshot that another one names as its parent, and that nobody took away on purpose. */
async function reportMissing(
  { backend }: StoreAccess,
  snapshots: readonly StoreSnapshot[],
  problems: CheckProblem[],
): Promise<void> {
  const forgotten = new Set((await backend.list('forgotten')).map(({ name }) => name));
  const there = new Set((await backend.list('snapshots')).map(({ name }) => name));
  const reported = new Set<string>();
  for (const { id, parent } of snapshots) {
    if (parent === undefined || there.has(parent) || forgotten.has(parent) || reported.has(parent)) continue;
    reported.add(parent);
    const file = `snapshots/${parent}`;
    problems.push({ file, message: `${file} in the store is missing: snapshot ${id} was compared with it` });
  }
}
