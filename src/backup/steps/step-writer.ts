import { randomBytes } from 'node:crypto';
import { SqlsyncError } from '../../errors.ts';
import type { StoreAccess } from '../files/store-files.ts';
import type { StoreSnapshot } from '../types.ts';
import { removeSteps } from './remove-steps.ts';
import { encodeStep, MAX_STEP_BYTES } from './step-file.ts';
import { BASE_DIGITS, coveredSteps, LEVELS, MAX_STEPS, parseStep } from './step-name.ts';
import type { StepFile } from './step-name.ts';

/** How long the steps are that are put together into one file. */
const GROUP_MS = 5 * 60_000;

/** The most different pages of a stream: a restore keeps them in memory. */
const MAX_STREAM_BYTES = 256 * 1024 * 1024;

/** The most pages in which a state may differ from the one before: they are in memory until the state is stored. */
export const MAX_CHANGE_BYTES: number = Number(process.env['SQLSYNC_MAX_CHANGE_BYTES'] ?? 128 * 1024 * 1024);

const RANDOM_BYTES = 4;

/** One state of the database. */
export interface NewState {
  readonly timeMs: number;
  readonly pageSize: number;
  readonly pageCount: number;
  /** The pages in which it differs from the state before, whole. The writer keeps them. */
  readonly pages: ReadonlyMap<number, Uint8Array>;
}

/** Steps that are going to be one file: their newest pages, and the state that they make. */
interface Group {
  readonly from: number;
  readonly to: number;
  readonly startedMs: number;
  readonly pages: Map<number, Uint8Array>;
  readonly state: NewState;
}

/**
 * Adds steps after one snapshot to a store: one file each, or several for a large change, durable when `put` resolves. Puts those of some
 * minutes together into one, from what it has in memory, and deletes single ones when they are old, beside what it puts.
 * Only this writer writes its stream, and a stream that failed is not continued.
 */
export class StepWriter {
  readonly stream: string;
  readonly #access: StoreAccess;
  readonly #base: StoreSnapshot;
  readonly #keepSinglesMs: number;
  readonly #signal: AbortSignal | undefined;
  #thinning: Promise<void> = Promise.resolve();
  #files: StepFile[] = [];
  readonly #pages = new Set<number>();
  #state = 0;
  #lastMs: number;
  #group: Group | undefined;

  /** @param signal Ends the deletion of single steps early. */
  constructor(access: StoreAccess, base: StoreSnapshot, keepSinglesMs: number, signal?: AbortSignal) {
    this.#signal = signal;
    this.#access = access;
    this.#base = base;
    this.#keepSinglesMs = keepSinglesMs;
    this.#lastMs = base.time.getTime();
    this.stream = base.id.slice(0, BASE_DIGITS) + randomBytes(RANDOM_BYTES).toString('hex');
  }

  /** True if the next changes need another snapshot, so that a restore of this stream stays cheap. */
  get isFull(): boolean {
    return this.#state >= MAX_STEPS || this.#pages.size * this.#base.pageSize > MAX_STREAM_BYTES;
  }

  /** Its files that are in the store. */
  get files(): readonly StepFile[] {
    return this.#files;
  }

  /** Throws SqlsyncError STORE_*; the stream then ends with the state before, or with this one. */
  async put(state: NewState): Promise<void> {
    // A clock that is set back must not make a later state look older.
    const next = { ...state, timeMs: Math.max(state.timeMs, this.#lastMs) };
    const parts = partsOf(next);
    const last = parts.pop() ?? next;
    for (const part of parts) await this.#add(part, LEVELS.part);
    await this.#add(last, LEVELS.single);
    this.#lastMs = next.timeMs;
    for (const page of state.pages.keys()) this.#pages.add(page);
    // What is put together has to fit one file.
    if (parts.length > 0) await this.#endGroup();
    else await this.#collect(next, this.#state);
  }

  async #add(state: NewState, level: number): Promise<void> {
    const to = this.#state + 1;
    this.#files.push(await this.#write(state, level, to, to));
    this.#state = to;
  }

  /** Puts together what is left, so that the single steps can go when they are old. Throws SqlsyncError STORE_*. */
  async end(): Promise<void> {
    await this.#endGroup();
    await this.#thinning;
  }

  async #endGroup(): Promise<void> {
    const group = this.#group;
    this.#group = undefined;
    if (group === undefined) return;
    const { from, state, pages, to } = group;
    for (const page of pages.keys()) if (page > state.pageCount) pages.delete(page);
    // A single step is its own file already.
    if (from < to) this.#files.push(await this.#write({ ...state, pages }, LEVELS.merged, from, to));
    // The next step does not wait for it.
    this.#thinning = this.#thinning.then(() => this.#thinOut());
  }

  async #thinOut(): Promise<void> {
    const doomed = coveredSteps(this.#files, Date.now() - this.#keepSinglesMs);
    try {
      const gone = await removeSteps(this.#access, doomed, this.#signal);
      this.#files = this.#files.filter((file) => !gone.has(file));
    } catch {
      // A user that may only add goes on adding. What stays is tried again, and told, when the next stream begins.
    }
  }

  async #collect(state: NewState, number: number): Promise<void> {
    const group = this.#group;
    const bytes = ((group?.pages.size ?? 0) + state.pages.size) * state.pageSize;
    const isOver = group !== undefined && performance.now() - group.startedMs >= GROUP_MS;
    if (isOver || bytes > MAX_STEP_BYTES) await this.#endGroup();
    const { pages, from, startedMs } = this.#group ?? {
      pages: new Map<number, Uint8Array>(),
      from: number,
      startedMs: performance.now(),
    };
    for (const [page, newer] of state.pages) pages.set(page, newer);
    this.#group = { from, to: number, startedMs, pages, state };
  }

  async #write(state: NewState, level: number, from: number, to: number): Promise<StepFile> {
    const { id: base } = this.#base;
    const { name, bytes } = await encodeStep(
      { ...state, base, stream: this.stream, level, from, to },
      this.#access.sealer,
    );
    await this.#access.backend.put(`steps/${name}`, [bytes]);
    const file = parseStep({ name, bytes: bytes.length });
    if (file === undefined) throw new SqlsyncError('INTERNAL', `${name} is no name of a step`);
    return file;
  }
}

/** The state with its pages in parts that fit a file each. */
function partsOf(state: NewState): NewState[] {
  const most = Math.max(1, Math.floor(MAX_STEP_BYTES / state.pageSize));
  if (state.pages.size <= most) return [state];
  const pages = [...state.pages];
  return Array.from({ length: Math.ceil(pages.length / most) }, (_, i) => ({
    ...state,
    pages: new Map(pages.slice(i * most, (i + 1) * most)),
  }));
}
