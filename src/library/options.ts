import { resolve } from 'node:path';
import { sanitizeText, SqlsyncError } from '../errors.ts';
import { formatLocation, parseLocation } from '../transport/location.ts';
import { isElsewhere } from '../backup/backends/elsewhere.ts';
import type { BackupOptions, RestoreOptions } from '../backup/options.ts';
import { COPY_REQUEST } from '../sync/request/copy-request.ts';
import type { CopyRequest } from '../sync/request/copy-request.ts';
import type { FollowIntoStoreOptions } from '../backup/follow/follow-store.ts';
import type { FollowOptions } from '../sync/follow/follow.ts';
import type { SyncOptions } from '../sync/runs/sync.ts';
import type { VerifyOptions } from '../sync/runs/verify.ts';
import type { DataOf, TaskName } from './messages.ts';

/** Returns what was expected if `value` is wrong. */
type Check = (value: unknown) => string | undefined;

/** A week: a larger number is a mistake, and Node's timers do not reach much farther. */
const MAX_MS = 7 * 24 * 3600 * 1000;

/** As a path, a text with a NUL or half of a surrogate pair would name another file. */
const text: Check = (value) =>
  typeof value === 'string' && value !== '' && !value.includes('\0') && value.isWellFormed()
    ? undefined
    : 'a string that is not empty, without NUL bytes and halves of characters';
/** Its value is never shown. */
const secret: Check = (value) => text(value);
const flag: Check = (value) => (typeof value === 'boolean' ? undefined : 'true or false');
const files: Check = (value) =>
  Array.isArray(value) && value.every((path) => text(path) === undefined) ? undefined : 'an array of paths';
const texts: Check = (value) =>
  Array.isArray(value) && value.every((each) => text(each) === undefined) ? undefined : 'an array of texts';
const moment: Check = (value) =>
  typeof value === 'object' && value !== null && 'stream' in value && 'step' in value && 'time' in value
    ? undefined
    : 'a moment of the store';
const callback: Check = (value) => (typeof value === 'function' ? undefined : 'a function');
/** Not `instanceof`: test frameworks have an AbortSignal of their own. */
const abortSignal: Check = (value) =>
  typeof value === 'object' && value !== null && 'aborted' in value && 'addEventListener' in value
    ? undefined
    : 'an AbortSignal';
const oneOf =
  (...names: string[]): Check =>
  (value) =>
    names.includes(value as string) ? undefined : `one of ${names.join(', ')}`;
const numberBetween =
  (min: number, max: number, unit: string): Check =>
  (value) =>
    Number.isInteger(value) && (value as number) >= min && (value as number) <= max
      ? undefined
      : `${unit} from ${min} to ${max}`;
const milliseconds = numberBetween(0, MAX_MS, 'a whole number of milliseconds');

/** What {@link COPY_REQUEST} says of each of its entries. */
const REQUEST = Object.fromEntries(
  Object.entries(COPY_REQUEST).map(([name, field]) => [name, checkOf(field)]),
) as Record<keyof CopyRequest, Check>;

function checkOf(field: (typeof COPY_REQUEST)[keyof CopyRequest]): Check {
  switch (field.kind) {
    case 'flag':
      return flag;
    case 'choice':
      return oneOf(...Object.keys(field.values).toSorted());
    case 'percentage':
      return numberBetween(0, 100, 'a whole percentage');
    case 'quantity':
      return field.unit === 'ms' ? milliseconds : numberBetween(0, Number.MAX_SAFE_INTEGER, 'bytes');
  }
}

/** The entry of an option that has another name there. */
const { compression: compress, ...COPY } = REQUEST;

const COMMON = {
  hash: REQUEST.hash,
  busyTimeoutMs: REQUEST.busyTimeoutMs,
  idleTimeoutMs: milliseconds,
  maxTimeMs: numberBetween(1, MAX_MS, 'a whole number of milliseconds'),
  port: numberBetween(1, 65535, 'a port number'),
  rsh: text,
  configFile: text,
  jump: text,
  identityFiles: files,
  knownHostsFiles: files,
  acceptNewHostKey: flag,
  remoteExe: text,
  connectTimeoutMs: milliseconds,
  bandwidthBytesPerS: numberBetween(1, Number.MAX_SAFE_INTEGER, 'bytes a second'),
  signal: abortSignal,
  onWarning: callback,
  onNote: callback,
} satisfies { [O in keyof AnyOptions]: Check };

const STORE = { store: text, password: secret, acceptNewStore: flag };

const { maxTimeMs: _, ...WITHOUT_END } = COMMON;

const FOLLOW = {
  origin: text,
  intervalMs: numberBetween(10, MAX_MS, 'a whole number of milliseconds'),
  exitOnError: flag,
  maxShrinkPercent: COPY.maxShrinkPercent,
  reader: COPY.reader,
  compress,
  onStep: callback,
  onFailure: callback,
  ...WITHOUT_END,
};

type AnyOptions = SyncOptions | VerifyOptions | BackupOptions | RestoreOptions;

/** The type makes it complete: each option needs a check. */
const CHECKS: {
  readonly sync: Readonly<Record<keyof SyncOptions, Check>>;
  readonly follow: Readonly<Record<keyof FollowOptions, Check>>;
  readonly followStore: Readonly<Record<keyof FollowIntoStoreOptions, Check>>;
  readonly verify: Readonly<Record<keyof VerifyOptions, Check>>;
  readonly backup: Readonly<Record<keyof BackupOptions, Check>>;
  readonly restore: Readonly<Record<keyof RestoreOptions, Check>>;
} = {
  sync: {
    origin: text,
    replica: text,
    compress,
    retries: numberBetween(0, 1_000_000, 'a number of retries'),
    reflink: flag,
    onProgress: callback,
    ...COPY,
    ...COMMON,
  },
  follow: {
    replica: text,
    overwrite: COPY.overwrite,
    followLinks: COPY.followLinks,
    fullEveryMs: COPY.fullEveryMs,
    maxSnapshotMs: COPY.maxSnapshotMs,
    maxWalGrowthBytes: COPY.maxWalGrowthBytes,
    ...FOLLOW,
  },
  followStore: {
    ...STORE,
    host: text,
    cache: flag,
    snapshotEveryMs: milliseconds,
    keepStepsMs: numberBetween(0, Number.MAX_SAFE_INTEGER, 'a whole number of milliseconds'),
    ...FOLLOW,
  },
  verify: { a: text, b: text, ...COMMON },
  backup: {
    origin: text,
    ...STORE,
    tags: texts,
    host: text,
    verify: flag,
    cache: flag,
    skipUnchanged: flag,
    maxShrinkPercent: COPY.maxShrinkPercent,
    compress,
    onProgress: callback,
    ...COMMON,
  },
  restore: {
    ...STORE,
    snapshot: text,
    moment,
    target: text,
    dryRun: flag,
    overwrite: flag,
    replace: flag,
    followLinks: flag,
    salvage: flag,
    cache: flag,
    compress,
    onProgress: callback,
    ...COMMON,
  },
};

/**
 * Checks the options and returns those that are data, with local paths made absolute: relative paths are relative to
 * the working directory at the call. Throws SqlsyncError USAGE.
 */
export function syncTaskOptions(options: SyncOptions): DataOf<SyncOptions> {
  const data = checked('sync', options);
  return { ...data, origin: absoluteLocation(data.origin), replica: absoluteLocation(data.replica) };
}

/** As {@link syncTaskOptions}. */
export function followTaskOptions(options: FollowOptions): DataOf<FollowOptions> {
  const data = checked('follow', options);
  return { ...data, origin: absoluteLocation(data.origin), replica: absoluteLocation(data.replica) };
}

/** As {@link syncTaskOptions}. */
export function followStoreTaskOptions(options: FollowIntoStoreOptions): DataOf<FollowIntoStoreOptions> {
  const data = checked('followStore', options);
  return { ...data, origin: absoluteLocation(data.origin), store: absoluteStore(data.store) };
}

/** As {@link syncTaskOptions}. */
export function verifyTaskOptions(options: VerifyOptions): DataOf<VerifyOptions> {
  const data = checked('verify', options);
  return { ...data, a: absoluteLocation(data.a), b: absoluteLocation(data.b) };
}

/** As {@link syncTaskOptions}. */
export function backupTaskOptions(options: BackupOptions): DataOf<BackupOptions> {
  const data = checked('backup', options);
  return { ...data, origin: absoluteLocation(data.origin), store: absoluteStore(data.store) };
}

/** As {@link syncTaskOptions}. */
export function restoreTaskOptions(options: RestoreOptions): DataOf<RestoreOptions> {
  const data = checked('restore', options);
  return { ...data, store: absoluteStore(data.store), target: absoluteLocation(data.target) };
}

const REQUIRED: Readonly<Record<TaskName, readonly string[]>> = {
  sync: ['origin', 'replica'],
  follow: ['origin', 'replica'],
  followStore: ['origin', 'store'],
  verify: ['a', 'b'],
  backup: ['origin', 'store'],
  restore: ['store', 'snapshot', 'target'],
};

type CheckedOptions = AnyOptions | FollowOptions | FollowIntoStoreOptions;

function checked<O extends CheckedOptions>(task: TaskName, options: O): DataOf<O> {
  const checks: Readonly<Record<string, Check>> = CHECKS[task];
  const name = task === 'followStore' ? 'follow' : task;
  if (typeof options !== 'object' || options === null) {
    throw new SqlsyncError('USAGE', `${name}() got ${shown(options)}; expected an object of options`);
  }
  for (const option of Object.keys(options)) {
    if (!Object.hasOwn(checks, option)) throw unknownOption(name, option, Object.keys(checks));
  }
  const required = REQUIRED[task];
  const given: Readonly<Record<string, unknown>> = { ...options };
  const data: Record<string, unknown> = {};
  for (const [option, check] of Object.entries(checks)) {
    const value = given[option];
    if (value === undefined && !required.includes(option)) continue;
    const expected = check(value);
    if (expected !== undefined) {
      throw new SqlsyncError(
        'USAGE',
        `${name}(): ${option} is ${check === secret ? `not shown, a ${typeof value}` : shown(value)}; expected ${expected}`,
      );
    }
    if (check === files) data[option] = (value as string[]).map((path) => resolve(path));
    else if (check !== callback && check !== abortSignal) data[option] = value;
  }
  return data as DataOf<O>;
}

function absoluteStore(place: string): string {
  return isElsewhere(place) ? place : resolve(place);
}

/** Throws SqlsyncError USAGE. */
function absoluteLocation(location: string): string {
  const parsed = parseLocation(location);
  return parsed.kind === 'local' ? formatLocation({ kind: 'local', path: resolve(parsed.path) }) : location;
}

function unknownOption(name: string, option: string, known: readonly string[]): SqlsyncError {
  return new SqlsyncError('USAGE', `${name}() has no option ${sanitizeText(option, 100)}`, {
    hint: `It has ${known.toSorted().join(', ')}.`,
  });
}

function shown(value: unknown): string {
  if (typeof value === 'string') return JSON.stringify(sanitizeText(value, 100));
  if (typeof value === 'function') return 'a function';
  if (typeof value === 'object' && value !== null) return Array.isArray(value) ? 'an array' : 'an object';
  return String(value);
}
