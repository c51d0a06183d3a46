import { setImmediate } from 'node:timers/promises';
import { checkSteps } from '../steps/check-steps.ts';
import { SqlsyncError } from '../../errors.ts';
import { damagedNotes } from '../prune/forget.ts';
import { orderByRoot } from './check-order.ts';
import { comparePack } from '../objects/compare-pack.ts';
import { Damage } from './damage.ts';
import type { KnownPack } from '../objects/trust.ts';
import { numberOf } from '../files/snapshot-order.ts';
import { isGoneSince, prunedMeanwhile } from '../files/store-lists.ts';
import { missingFile, StoreDamage, throwIfAborted } from '../store-error.ts';
import { choosePacks } from './choose-packs.ts';
import { discard } from '../packs/frame-memory.ts';
import { HeldPack } from './held-pack.ts';
import { bytesReadThere, isOfPlace } from './read-there.ts';
import { loadContents, loadSnapshots, namesIn, snapshotNames } from '../files/store-files.ts';
import type { StoreAccess, StoreContents } from '../files/store-files.ts';
import type { CheckOptions, CheckProblem, CheckSummary, StoreSnapshot } from '../types.ts';

/** How often a check begins again after prunes overtook it. */
const MAX_ATTEMPTS = 3;

/**
 * Looks for damage: see docs/store-format.md, "Check". A file that a prune deleted meanwhile is no damage: no snapshot
 * needed it, or, after more than a grace period, the check finds its content elsewhere when it begins again. Throws
 * SqlsyncError STORE_UNAVAILABLE, INTERRUPTED, and STORE_PRUNED if prunes keep overtaking it.
 */
export async function checkStore(access: StoreAccess, options: CheckOptions): Promise<CheckSummary> {
  for (let attempt = 1; ; attempt++) {
    const { summary, gone } = await checkOnce(access, options);
    const isSound = summary.problems.length + summary.damaged.length === 0;
    if (isSound || gone === undefined) return summary;
    if (attempt === MAX_ATTEMPTS) throw prunedMeanwhile(gone);
  }
}

/** `gone` is a file that was deleted since the lists were loaded, if there is one. */
async function checkOnce(
  access: StoreAccess,
  options: CheckOptions,
): Promise<{ summary: CheckSummary; gone: StoreDamage | undefined }> {
  const problems: CheckProblem[] = [];
  const report = (file: string, error: Error): void => void problems.push({ file, message: error.message });
  const snapshots = await loadSnapshots(access, report);
  const holding = { ...access, files: new HeldPack(access.files) };
  const contents = await loadContents(holding, report);
  const check = new StoreCheck(holding, contents, problems, options);
  check.lookAtPacks();
  await check.readPacks();
  await checkForgotten(access, snapshots, problems);
  problems.push(
    ...(await checkSteps(access, snapshots, { ...options, readData: options.readData === true })),
  );
  const damage = new Damage(contents.reader, check.bad, options.readData === true && !check.wasReadThere);
  const damaged: { snapshot: StoreSnapshot; pagesLost: number }[] = [];
  const intact: StoreSnapshot[] = [];
  for (const [done, snapshot] of snapshots.entries()) {
    throwIfAborted(options.signal);
    options.onProgress?.({ phase: 'read', done, total: snapshots.length });
    const pagesLost = damage.lostPages(snapshot);
    if (pagesLost > 0) damaged.push({ snapshot, pagesLost });
    else intact.push(snapshot);
    const misfit = damage.misfit(snapshot);
    const file = `snapshots/${snapshot.id}`;
    if (misfit !== undefined)
      problems.push({ file, message: `${file}, of ${originOf(snapshot)}, ${misfit}` });
  }
  // Reading the trees also finds damage.
  for (const [file, fault] of contents.reader.found) {
    if (isGoneSince(contents, fault)) check.gone ??= fault;
    else if (!problems.some((problem) => problem.file === file))
      problems.push({ file, message: fault.message });
  }
  for (const pack of contents.reader.misindexed) {
    const file = `packs/${pack}`;
    if (problems.some((problem) => problem.file === file)) continue;
    problems.push({ file, message: `${file} in the store has deltas on other bases than its index says` });
  }
  const there = await snapshotNames(access);
  const forgotten = damaged.find(({ snapshot }) => !there.has(snapshot.id));
  if (forgotten !== undefined)
    check.gone ??= missingFile(access.backend.description, `snapshots/${forgotten.snapshot.id}`);
  if (problems.length + damaged.length > 0) problems.push(...check.changedUnindexed);
  if (problems.length === 0) {
    for (const { snapshot, pagesLost } of damaged) {
      const what = `needs ${pagesLost} pages whose parts no index names completely`;
      const message = `snapshot ${snapshot.id}, of ${originOf(snapshot)}, ${what}`;
      problems.push({ file: `snapshots/${snapshot.id}`, message });
    }
  }
  for (const snapshot of snapshots.filter((each) => numberOf(each) !== each.generation)) {
    const file = `snapshots/${snapshot.id}`;
    const what = `has the number ${snapshot.generation}, far ahead of the time at which its place got it: it is false, or that clock was wrong`;
    problems.push({ file, message: `${file}, of ${originOf(snapshot)}, ${what}` });
  }
  const { packsRead, bytesRead, gone } = check;
  const packFiles = [...contents.packFiles.values()];
  const packBytes = packFiles.reduce((sum, { bytes }) => sum + bytes, 0);
  const dataRead = dataReadBy(options, check.wasReadThere);
  const amounts = { dataRead, packsRead, bytesRead, packs: packFiles.length, packBytes };
  return { summary: { problems, damaged, intact, ...amounts }, gone };
}

function dataReadBy(
  { readData, readDataSubset }: CheckOptions,
  wasReadThere: boolean,
): CheckSummary['dataRead'] {
  if (readData === true) return wasReadThere ? 'there' : 'all';
  return readDataSubset === undefined ? 'none' : 'part';
}

/** The database and time of a snapshot, for messages. */
function originOf({ host, path, time }: StoreSnapshot): string {
  return `${host}:${path} at ${time.toISOString()}`;
}

/** Objects between two points where a signal can interrupt. */
const OBJECTS_PER_TURN = 4096;

/** A pack of more bytes is not kept in memory: few are larger than 16 MB. */
const MAX_HELD_BYTES = 64 * 1024 * 1024;

/** An open store that can serve one pack from memory. */
type Holding = StoreAccess & { readonly files: HeldPack };

class StoreCheck {
  /** By object number: 1 for a copy that cannot be read. */
  readonly bad: Uint8Array;
  /** Changed packs without an index. Unless something is missing, they are garbage, or were given up by a repair. */
  readonly changedUnindexed: CheckProblem[] = [];
  packsRead = 0;
  bytesRead = 0;
  /** The place of the store has read the packs, and says that each is that of its name. */
  wasReadThere = false;
  /** The first needed pack that was deleted since the lists were loaded. */
  gone: StoreDamage | undefined;
  readonly #access: Holding;
  readonly #contents: StoreContents;
  readonly #problems: CheckProblem[];
  readonly #options: CheckOptions;
  /** Packs whose whole objects were checked. */
  readonly #checked = new Set<string>();
  #page: Uint8Array = new Uint8Array(0);

  constructor(access: Holding, contents: StoreContents, problems: CheckProblem[], options: CheckOptions) {
    this.#access = access;
    this.#contents = contents;
    this.#problems = problems;
    this.#options = options;
    this.bad = new Uint8Array(contents.index.objectCount);
  }

  /** Checks presence and length of every pack that an index names. */
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

  /**
   * Reads every byte of the chosen packs, and checks their whole objects in memory. What is left are the deltas, which
   * need objects of other packs.
   */
  async readPacks(): Promise<void> {
    const { readData, readDataSubset, readHere, signal, onProgress } = this.#options;
    if (readData !== true && readDataSubset === undefined) return;
    const { backend } = this.#access;
    const { index, packFiles } = this.#contents;
    // Includes packs without an index: a backup under way may be about to index them.
    const all = [...packFiles.values()].sort((a, b) => (a.name < b.name ? -1 : 1));
    const chosen = readData === true ? all.map(({ name }) => name) : choosePacks(all, readDataSubset);
    const readThere = readHere === true ? undefined : await bytesReadThere(backend, chosen, this.#options);
    if (readThere !== undefined) {
      this.packsRead = chosen.length;
      this.bytesRead = readThere;
      this.wasReadThere = true;
      return;
    }
    for (const [done, pack] of chosen.entries()) {
      throwIfAborted(signal);
      onProgress?.({ phase: 'read', done, total: chosen.length });
      await this.#comparePack(pack);
    }
    await this.#putTogether(chosen.flatMap((id) => index.packs.get(id) ?? []));
  }

  async #comparePack(id: string): Promise<void> {
    const file = `packs/${id}`;
    const known = this.#contents.index.packs.get(id);
    const held = known?.present === true && known.bytes <= MAX_HELD_BYTES ? known : undefined;
    const pieces: Uint8Array[] = [];
    try {
      const take = (piece: Uint8Array): void => void pieces.push(piece);
      const { bytes, isChanged } = await comparePack(this.#access.backend, id, held && take);
      this.packsRead++;
      this.bytesRead += bytes;
      if (isChanged) this.#takeChanged(file, known);
    } catch (error) {
      // A prune deletes packs that no index names any more.
      const isMissing = error instanceof StoreDamage && error.code === 'STORE_FILE_MISSING';
      if (isMissing && known === undefined) return;
      if (isMissing && known !== undefined)
        this.bad.fill(1, known.firstObject, known.firstObject + known.objectCount);
      this.#take(error, file);
      return;
    }
    if (held === undefined) return;
    const bytes = Buffer.concat(pieces);
    for (const piece of pieces) discard(piece);
    await this.#checkWhole(held, bytes);
    discard(bytes);
  }

  #takeChanged(file: string, known: KnownPack | undefined): void {
    const problem = { file, message: `${file} in the store was changed since it was written` };
    if (known === undefined) this.changedUnindexed.push(problem);
    else if (known.present) this.#problems.push(problem);
  }

  /** Checks the objects of a pack that are whole, from its bytes. */
  async #checkWhole(pack: KnownPack, bytes: Uint8Array): Promise<void> {
    const { index } = this.#contents;
    await this.#access.files.during(`packs/${pack.id}`, bytes, async () => {
      for (let n = 0; n < pack.objectCount; n++) {
        if (n % OBJECTS_PER_TURN === 0) await setImmediate();
        throwIfAborted(this.#options.signal);
        const object = pack.firstObject + n;
        if (index.depthOf(object) === 0) this.#checkObject(object);
      }
    });
    this.#checked.add(pack.id);
  }

  /** Assembles every object in these packs that was not checked yet. */
  async #putTogether(packs: readonly KnownPack[]): Promise<void> {
    const { index, reader } = this.#contents;
    const order = orderByRoot(reader, packs);
    for (const [done, object] of order.entries()) {
      if (done % OBJECTS_PER_TURN === 0) {
        await setImmediate();
        throwIfAborted(this.#options.signal);
        this.#options.onProgress?.({ phase: 'read', done, total: order.length });
      }
      const isChecked = index.depthOf(object) === 0 && this.#checked.has(index.packOf(object)?.id ?? '');
      if (!isChecked) this.#checkObject(object);
    }
  }

  #checkObject(object: number): void {
    if (this.bad[object] === 1) return;
    const { index, reader } = this.#contents;
    try {
      reader.checkObject(object, (size) => this.#scratch(size));
    } catch (error) {
      this.bad[object] = 1;
      this.#take(error, `packs/${index.packOf(object)?.id ?? ''}`);
    }
  }

  /** Records at most one problem per file. */
  #take(error: unknown, file: string): void {
    if (!(error instanceof SqlsyncError) || isOfPlace(this.#access.backend, error)) throw error;
    // Garbage may have lost its base; if a snapshot needs it, the problem is reported for the snapshot.
    if (error instanceof StoreDamage && error.file === 'indexes') return;
    if (error instanceof StoreDamage && isGoneSince(this.#contents, error)) {
      this.gone ??= error;
      return;
    }
    const named = error instanceof StoreDamage && error.file.includes('/') ? error.file : file;
    if (this.#problems.some((problem) => problem.file === named)) return;
    this.#problems.push({ file: named, message: error.message });
  }

  #scratch(size: number): Uint8Array {
    if (this.#page.length !== size) this.#page = new Uint8Array(size);
    return this.#page;
  }
}

/**
 * Checks the notes on forgotten snapshots, and whether a snapshot that another names as its parent is neither there nor
 * forgotten.
 */
async function checkForgotten(
  access: StoreAccess,
  snapshots: readonly StoreSnapshot[],
  problems: CheckProblem[],
): Promise<void> {
  // In this order: a forget puts its note before it deletes.
  const there = await namesIn(access, 'snapshots');
  const forgotten = await access.backend.list('forgotten');
  const damaged = await damagedNotes(access, forgotten);
  for (const { file, message } of damaged) problems.push({ file, message });
  // In an encrypted store everybody who may put files could say that a snapshot was forgotten.
  const forged = new Set(access.sealer.scheme === 'none' ? [] : damaged.map(({ id }) => id));
  const known = new Set([...there, ...forgotten.map(({ name }) => name).filter((id) => !forged.has(id))]);
  // Listed last: the note on a parent may go with the last snapshot that names it.
  const staying = await snapshotNames(access);
  for (const snapshot of snapshots) {
    const { id, parent } = snapshot;
    if (parent === undefined || known.has(parent) || !staying.has(id)) continue;
    known.add(parent);
    const file = `snapshots/${parent}`;
    const child = `snapshot ${snapshot.id}, of ${originOf(snapshot)}, was compared with it`;
    problems.push({ file, message: `${file} in the store is missing: ${child}` });
  }
}
