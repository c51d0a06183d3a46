import { SqlsyncError } from '../../errors.ts';
import type { StoreAccess } from '../files/store-files.ts';
import { isMissing } from '../store-error.ts';
import type { StoreMoment, StoreSnapshot } from '../types.ts';
import { decodeStep, MAX_STEP_FILE_BYTES } from './step-file.ts';
import type { Step } from './step-file.ts';
import {
  BASE_DIGITS,
  byStream,
  LEVELS,
  mergedAmong,
  parseStep,
  pathTo,
  reachableStates,
} from './step-name.ts';
import type { StepFile } from './step-name.ts';

/** The files of `steps`, by their names. Throws SqlsyncError STORE_UNAVAILABLE. */
export async function listSteps({ backend }: StoreAccess): Promise<StepFile[]> {
  return (await backend.list('steps')).flatMap((file) => parseStep(file) ?? []);
}

/** Reads one file. Throws SqlsyncError STORE_FILE_MISSING, STORE_DAMAGED, STORE_UNAVAILABLE. */
export async function readStep({ backend, sealer }: StoreAccess, file: StepFile): Promise<Step> {
  const range = { offset: 0, length: MAX_STEP_FILE_BYTES + 1 };
  return decodeStep(file, await backend.get(`steps/${file.name}`, range), sealer);
}

/** True if a stream begins with this snapshot. */
export function beginsWith(stream: string, { id }: Pick<StoreSnapshot, 'id'>): boolean {
  return stream.startsWith(id.slice(0, BASE_DIGITS));
}

/** Which state is wanted. */
export interface Wanted {
  /** The newest snapshot that could be meant. */
  readonly chosen: StoreSnapshot;
  /** All snapshots of its database. */
  readonly snapshots: readonly StoreSnapshot[];
  /** In ms since 1970. */
  readonly untilMs: number;
}

/**
 * The newest state until `untilMs` that is newer than the chosen snapshot: one of a stream that begins with it, or one of
 * another stream with a later time. A time in the future, of a clock that was wrong, counts only in the first. undefined
 * if there is none. Throws SqlsyncError STORE_FILE_MISSING if such a state is in the store and lacks a file.
 */
export function momentUntil(
  files: readonly StepFile[],
  { chosen, snapshots, untilMs }: Wanted,
): StoreMoment | undefined {
  const nowMs = Date.now();
  let newest: StoreMoment | undefined;
  let lost: StepFile | undefined;
  for (const [stream, inOrder] of byStream(files)) {
    const base = snapshots.find((snapshot) => beginsWith(stream, snapshot));
    if (base === undefined) continue;
    const isOwn = base.id === chosen.id;
    const candidates = inOrder.filter(
      ({ level, timeMs }) =>
        level !== LEVELS.part &&
        timeMs <= untilMs &&
        (isOwn || (timeMs > chosen.time.getTime() && timeMs <= nowMs)),
    );
    const via = reachableStates(inOrder);
    const longer = mergedAmong(inOrder);
    for (const file of candidates) {
      const { to: step, timeMs } = file;
      if (via.has(step)) {
        if (timeMs >= (newest?.time.getTime() ?? -Infinity))
          newest = { snapshot: base.id, stream, step, time: new Date(timeMs) };
      } else if (
        timeMs > (lost?.timeMs ?? -Infinity) &&
        !longer.some(({ from, to }) => from <= step && step <= to && via.has(to))
      )
        lost = file;
    }
  }
  if (lost === undefined || (newest !== undefined && newest.time.getTime() >= lost.timeMs)) return newest;
  const time = (newest?.time ?? chosen.time).toISOString();
  throw new SqlsyncError(
    'STORE_FILE_MISSING',
    `The state of ${new Date(lost.timeMs).toISOString()} cannot be restored: a file of steps before it is missing in the store`,
    {
      hint: `The newest state before the gap is STORE#${time}. \`sqlsync check STORE\` names what is missing.`,
    },
  );
}

/**
 * The ids of the snapshots with a step that is newer than the newest snapshot of the same database. A time in the
 * future, of a clock that was wrong, does not count.
 */
export function basesOfNewest(
  files: readonly StepFile[],
  snapshots: readonly StoreSnapshot[],
): ReadonlySet<string> {
  const nowMs = Date.now();
  const newestOf = new Map<string, number>();
  for (const { host, path, time } of snapshots) {
    const key = JSON.stringify([host, path]);
    if (time.getTime() <= nowMs) newestOf.set(key, Math.max(newestOf.get(key) ?? 0, time.getTime()));
  }
  const streams = [...byStream(files)];
  const isNeeded = (snapshot: StoreSnapshot): boolean => {
    const newestMs = newestOf.get(JSON.stringify([snapshot.host, snapshot.path])) ?? 0;
    return streams.some(
      ([stream, inOrder]) =>
        beginsWith(stream, snapshot) &&
        inOrder.some(
          ({ timeMs }) => timeMs <= nowMs && timeMs >= Math.max(newestMs, snapshot.time.getTime()),
        ),
    );
  };
  return new Set(snapshots.filter(isNeeded).map(({ id }) => id));
}

/** What is laid over the snapshot of a stream to make one of its states. */
export interface Overlay {
  readonly pageCount: number;
  /** Pages of the snapshot up to here count if they are not in `pages`. */
  readonly basePages: number;
  readonly pages: ReadonlyMap<number, Uint8Array>;
}

/** A step that was listed may have been put together with others, and be gone. */
const MAX_LISTINGS = 4;

/** Reads the steps that lead to a state. Throws SqlsyncError SNAPSHOT_NOT_FOUND, STORE_*. */
export async function loadOverlay(
  access: StoreAccess,
  base: StoreSnapshot,
  { stream, step }: Pick<StoreMoment, 'stream' | 'step'>,
): Promise<Overlay> {
  const bad = new Map<string, SqlsyncError>();
  for (let listing = 1; ; listing++) {
    const listed = (await listSteps(access)).filter((file) => file.stream === stream);
    const files = listed.filter(({ name }) => !bad.has(name));
    const path = pathTo(reachableStates(byStream(files).get(stream) ?? []), step);
    if (path === undefined) {
      for (const error of bad.values()) throw error;
      throw new SqlsyncError('SNAPSHOT_NOT_FOUND', `The store no longer has step ${step} by itself`, {
        hint: 'Older steps are put together: name the time again, to restore the newest state until then.',
      });
    }
    try {
      return await layOver(access, base, path);
    } catch (error) {
      // The single steps may be there in the place of a damaged file of several.
      if (error instanceof DamagedStep) bad.set(error.name, error.failure);
      else if (!isMissing(error) || listing === MAX_LISTINGS) throw error;
    }
  }
}

async function layOver(
  access: StoreAccess,
  base: StoreSnapshot,
  path: readonly StepFile[],
): Promise<Overlay> {
  const pages = new Map<number, Uint8Array>();
  let { pageCount } = base;
  let basePages = pageCount;
  for await (const { file, step } of inOrderOf(path, access)) {
    if (step.base !== base.id || step.pageSize !== base.pageSize)
      throw new DamagedStep(file, notOf(file, base));
    ({ pageCount } = step);
    basePages = Math.min(basePages, pageCount);
    for (const page of pages.keys()) if (page > pageCount) pages.delete(page);
    // Copies: one page would keep the memory of its whole file.
    for (const [page, bytes] of step.pages) pages.set(page, bytes.slice());
  }
  return { pageCount, basePages, pages };
}

/** The most bytes of files that are requested at once, unless one has more. */
const MAX_AHEAD_BYTES = 32 * 1024 * 1024;

/**
 * Reads the files of a path, several at once: by the time that one is laid over, the next are on their way. Throws what
 * `readSound` throws.
 */
async function* inOrderOf(
  path: readonly StepFile[],
  access: StoreAccess,
): AsyncGenerator<{ readonly file: StepFile; readonly step: Step }> {
  const { parallel = 1 } = access.backend;
  const ahead: { file: StepFile; reading: Promise<Step> }[] = [];
  let next = 0;
  let bytes = 0;
  while (ahead.length > 0 || next < path.length) {
    for (let file = path[next]; file !== undefined && ahead.length < parallel; file = path[next]) {
      if (ahead.length > 0 && bytes + file.bytes > MAX_AHEAD_BYTES) break;
      const reading = readSound(access, file);
      // Its turn may never come.
      reading.catch(() => {});
      ahead.push({ file, reading });
      bytes += file.bytes;
      next++;
    }
    const { file, reading } = ahead.shift() as (typeof ahead)[number];
    yield { file, step: await reading };
    bytes -= file.bytes;
  }
}

/** Throws DamagedStep for a file that is not as it was written, and SqlsyncError STORE_*. */
async function readSound(access: StoreAccess, file: StepFile): Promise<Step> {
  try {
    return await readStep(access, file);
  } catch (error) {
    if (error instanceof SqlsyncError && error.code === 'STORE_DAMAGED') throw new DamagedStep(file, error);
    throw error;
  }
}

/** One file of a path cannot be used. */
class DamagedStep extends Error {
  override readonly name: string;
  readonly failure: SqlsyncError;

  constructor({ name }: StepFile, failure: SqlsyncError) {
    super(failure.message);
    this.name = name;
    this.failure = failure;
  }
}

function notOf({ name }: StepFile, { id }: StoreSnapshot): SqlsyncError {
  return new SqlsyncError('STORE_DAMAGED', `steps/${name} in the store is no step after snapshot ${id}`, {
    hint: '`sqlsync check STORE --read-data` shows what else is damaged.',
  });
}
