import { createHash } from 'node:crypto';
import {
  existsSync,
  fsyncSync,
  openSync,
  closeSync,
  readFileSync,
  realpathSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { basename, dirname, join, resolve } from 'node:path';
import { sanitizeLine } from '../../errors.ts';
import { makePrivateFolder, userStateFolder } from '../../files/user-cache.ts';

/** Something that went wrong. */
export interface Failure {
  /** In milliseconds since 1970, as all `…AtMs`. */
  readonly atMs: number;
  /** One of the error codes, or DAMAGED, HOOK_FAILED. */
  readonly code: string;
  readonly message: string;
}

/** What the service remembers of one target of one database. */
export interface TargetState {
  readonly origin: string;
  readonly target: string;
  readonly kind: 'replica' | 'follow' | 'store';
  /** The pattern that matched the database. */
  readonly pattern?: string | undefined;
  readonly schedule: string;
  readonly lateAfterMs: number | undefined;
  /** When the service first knew of it. */
  readonly sinceAtMs: number;
  /** When the next copy is due; undefined for one that follows. */
  readonly dueAtMs: number | undefined;
  /** The start of the run under way, or of one that was cut off. */
  readonly runningSinceMs?: number | undefined;
  readonly startedAtMs?: number | undefined;
  /** The start of the last run that succeeded: its copy has all that was committed by then. */
  readonly successAtMs?: number | undefined;
  /** Undefined once a run has succeeded again. */
  readonly failure?: Failure | undefined;
  readonly failedInARow: number;
  /** Of the last success. */
  readonly moved?:
    { readonly bytes: number; readonly pagesChanged: number; readonly durationMs: number } | undefined;
  readonly snapshot?: string | undefined;
  /** The size of the database in bytes, oldest first. */
  readonly sizes: readonly (readonly [atMs: number, bytes: number])[];
  /** When its copy was last restored and found whole. */
  readonly provenAtMs?: number | undefined;
  readonly proofTriedAtMs?: number | undefined;
  readonly proofFailure?: Failure | undefined;
  /** True while a replica follows. */
  readonly isFollowing: boolean;
  /** True if the database has gone from a pattern or a watched folder, since `goneAtMs`. */
  readonly isGone: boolean;
  readonly goneAtMs?: number | undefined;
  /** As {@link placeId} makes it. */
  readonly placeId?: string | undefined;
}

/** How an entry of the configuration that stands for several databases is found. */
export interface EntryState {
  /** Its pattern. */
  readonly entry: string;
  readonly databases: number;
  readonly level: 'fine' | 'late' | 'failing';
  /** A sentence if it is not fine. */
  readonly why: string | undefined;
}

export interface ServiceState {
  readonly version: 1;
  readonly config: string;
  readonly pid: number;
  readonly startedAtMs: number;
  /** When the service last wrote this. */
  readonly aliveAtMs: number;
  /** True while a service runs. */
  readonly isRunning: boolean;
  /** Why the file was not taken at the last reload. */
  readonly configFailure?: Failure | undefined;
  readonly entries?: readonly EntryState[];
  readonly targets: Readonly<Record<string, TargetState>>;
}

/** How many sizes are kept of a database: two months of one a day. */
export const SIZES_KEPT = 60;

/** The id of a target of a database. */
export function targetId(origin: string, target: string): string {
  return digestOf(JSON.stringify([origin, target]));
}

/** Tells places apart that look alike when they are shown. */
export function placeId(place: string): string {
  return digestOf(place);
}

function digestOf(text: string): string {
  return createHash('sha256').update(text).digest('hex').slice(0, 16);
}

/** The folder in which a service with this configuration keeps its state. `given` is the file's `state`. */
export function stateFolder(config: string, given: string | undefined): string {
  if (given !== undefined) return given;
  const folder = dirname(resolve(config));
  // The name itself may be a link that leads elsewhere after each update.
  const file = join(existsSync(folder) ? realpathSync(folder) : folder, basename(config));
  return userStateFolder(join('service', digestOf(file)));
}

export const STATE_FILE = 'state.json';
export const SOCKET_FILE = 'socket';

/** The state of the last service, or undefined. A file that cannot be read counts as none. */
export function loadState(folder: string): ServiceState | undefined {
  try {
    const state = JSON.parse(readFileSync(join(folder, STATE_FILE), 'utf8')) as ServiceState | null;
    const targets: unknown = state?.targets;
    return state?.version === 1 && typeof targets === 'object' && targets !== null ? state : undefined;
  } catch {
    return undefined;
  }
}

/**
 * Puts a file aside that is there and is no state, so that somebody can look at it; true if there was one. What the
 * service then does not know any more: missed moments, failures, proofs and sizes.
 */
export function putAsideBroken(folder: string): boolean {
  const file = join(folder, STATE_FILE);
  if (!existsSync(file) || loadState(folder) !== undefined) return false;
  renameSync(file, `${file}.bad`);
  return true;
}

/** Replaces the file as a whole, durably. Throws the system's errors. */
export function saveState(folder: string, state: ServiceState): void {
  makePrivateFolder(folder);
  const temporary = join(folder, `.${STATE_FILE}.new`);
  // Made anew: a link of that name would lead elsewhere.
  rmSync(temporary, { force: true });
  const descriptor = openSync(temporary, 'wx', 0o600);
  try {
    // A single write may put down a part only, where the disk is full.
    writeFileSync(descriptor, JSON.stringify(state));
    fsyncSync(descriptor);
  } finally {
    closeSync(descriptor);
  }
  renameSync(temporary, join(folder, STATE_FILE));
}

/** A place or a message as it is shown and kept: on one line, and without the login of a URL. */
export function withoutSecrets(text: string): string {
  return sanitizeLine(text.replaceAll(/(https?:\/\/)[^\s"']*@/gi, '$1…@'), 1000);
}
