import { readFileSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { LineCounter, parseDocument } from 'yaml';
import { isElsewhere } from '../../backup/backends/elsewhere.ts';
import { SqlsyncError, sanitizeLine, systemErrorCode } from '../../errors.ts';
import { parsePingUrl } from '../../cli/job/ping.ts';
import { fixedFolder, isPattern } from '../../cli/store/name-pattern.ts';
import { storePlace } from '../../cli/store/store-command.ts';
import { parseLocation } from '../../transport/location.ts';
import { CONFIG, TARGET_OPTIONS } from './schema.ts';
import type { Hooks, OptionValue, RawConfig, RawDatabase, RawTarget } from './schema.ts';
import type { Schedule } from './schedule.ts';
import { Reading } from './shapes.ts';
import type { Fault } from './shapes.ts';

/** Where the file is looked for without `-c`. */
export const DEFAULT_CONFIG = 'sqlsync.yaml';

export interface TargetConfig {
  /** `follow` is a replica, too. */
  readonly kind: 'replica' | 'follow' | 'store';
  /** The replica or the store, absolute or on another host; a replica may have `{name}` in it. */
  readonly place: string;
  readonly schedule: Schedule;
  readonly verifyMs: number | undefined;
  readonly lateAfterMs: number | undefined;
  readonly hooks: Hooks;
  /** A secret. */
  readonly pingUrl: string | undefined;
  /** The words of the command, without its places. */
  readonly options: Readonly<Record<string, OptionValue>>;
  readonly keep: Readonly<Record<string, string | readonly string[]>>;
  readonly prune: boolean;
  readonly passwordFile: string | undefined;
  readonly passwordCommand: string | undefined;
}

export interface DatabaseConfig {
  /** A database, absolute or on another host, or a pattern for several of this host. */
  readonly origin: string;
  /** True if it stands for several databases, of which there may be none. */
  readonly isPattern: boolean;
  readonly targets: readonly TargetConfig[];
}

export interface ServiceConfig {
  /** Absolute. */
  readonly file: string;
  readonly databases: readonly DatabaseConfig[];
  readonly concurrency: number;
  readonly spreadMs: number;
  readonly scanMs: number;
  readonly stateFolder: string | undefined;
}

/** A file with more than this is no configuration. */
const MAX_BYTES = 4 * 1024 * 1024;

/** The shown faults of a file; one slip of the indentation makes many. */
const MAX_FAULTS = 20;

/**
 * The configuration in a file. Relative paths in it begin at its folder.
 *
 * @throws {SqlsyncError} CONFIG_INVALID with every fault, and file, line, column, what was found and what is expected.
 */
export function readConfig(path: string, environment: NodeJS.ProcessEnv = process.env): ServiceConfig {
  const file = resolve(path);
  const lines = new LineCounter();
  const document = parseDocument(readText(path), { lineCounter: lines, prettyErrors: false, version: '1.2' });
  const reading = new Reading(document, lines, environment);
  for (const { pos, message } of [...document.errors, ...document.warnings])
    reading.faultAt(pos[0], '', sanitizeLine(message, 200), 'YAML');
  const raw =
    reading.faults.length > 0 ? undefined : CONFIG.read(reading.resolve(document.contents), '', reading);
  const config = raw === undefined ? undefined : new Translation(file, reading).config(raw);
  if (config === undefined || reading.faults.length > 0) throw invalid(path, reading.faults);
  return config;
}

/** The text of the file. Throws SqlsyncError CONFIG_INVALID. */
export function readText(path: string): string {
  let bytes: Buffer;
  try {
    bytes = readFileSync(path);
  } catch (error) {
    const isMissing = systemErrorCode(error) === 'ENOENT';
    throw new SqlsyncError(
      'CONFIG_INVALID',
      `The configuration ${sanitizeLine(path)} ${isMissing ? 'does not exist' : `cannot be read (${systemErrorCode(error)})`}`,
      {
        hint: 'Name the file with -c FILE. `sqlsync config example` prints one to begin with.',
        cause: error,
      },
    );
  }
  if (bytes.length > MAX_BYTES)
    throw invalid(path, [
      { ...NOWHERE, found: `${bytes.length} bytes`, expected: `at most ${MAX_BYTES} bytes of YAML` },
    ]);
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch {
    throw invalid(path, [{ ...NOWHERE, found: 'bytes that are not UTF-8', expected: 'YAML in UTF-8' }]);
  }
}

const NOWHERE = { line: 1, column: 1, path: '' } as const;

function invalid(file: string, faults: readonly Fault[]): SqlsyncError {
  const shown = faults.slice(0, MAX_FAULTS).map(({ line, column, path, found, expected }) => {
    const where = path === '' ? '' : `${path}: `;
    return `${sanitizeLine(file)}:${line}:${column}: ${where}found ${found}; expected ${expected}`;
  });
  const more = faults.length > MAX_FAULTS ? [`and ${faults.length - MAX_FAULTS} more`] : [];
  return new SqlsyncError('CONFIG_INVALID', [...shown, ...more].join('\n'), {
    hint: 'Nothing of it was taken. `sqlsync config example` shows a whole file, docs/service.md every field.',
  });
}

/** Makes the configuration of what the file says, and finds what makes no sense together. */
class Translation {
  readonly #file: string;
  readonly #folder: string;
  readonly #reading: Reading;
  /** Replicas that have a place. */
  readonly #taken = new Set<string>();

  constructor(file: string, reading: Reading) {
    this.#file = file;
    this.#folder = dirname(file);
    this.#reading = reading;
  }

  config(raw: RawConfig): ServiceConfig {
    return {
      file: this.#file,
      databases: (raw.databases ?? []).flatMap((each) => this.#database(each) ?? []),
      concurrency: raw.concurrency ?? 2,
      spreadMs: raw.spread ?? 60_000,
      scanMs: raw.scan ?? 10_000,
      stateFolder: raw.state === undefined ? undefined : resolve(this.#folder, raw.state),
    };
  }

  #database(raw: RawDatabase): DatabaseConfig | undefined {
    const { path, folder, pattern } = raw;
    if ((path === undefined) === (folder === undefined))
      return this.#wrong(
        raw,
        'folder',
        path === undefined ? 'neither path nor folder' : 'path and folder',
        'one of path and folder',
      );
    if (pattern !== undefined && folder === undefined)
      return this.#wrong(
        raw,
        'pattern',
        undefined,
        'a pattern only beside a folder; a path may have a pattern in it',
      );
    if (pattern?.includes('/') === true)
      return this.#wrong(raw, 'pattern', undefined, 'a pattern of names, without a slash');
    const origin =
      path === undefined
        ? `${escapePattern(resolve(this.#folder, folder ?? ''))}/${pattern ?? '*'}`
        : this.#place(raw, 'path', path);
    if (origin === undefined) return undefined;
    const isMany = folder !== undefined || isPattern(localPath(origin) ?? '');
    if (!isMany && localPath(origin) === undefined && isPattern(origin.slice(origin.indexOf(':'))))
      return this.#wrong(raw, 'path', undefined, 'a pattern only for databases of this host');
    const targets = (raw.targets ?? []).map((target) => this.#target(raw, target, origin, isMany));
    return targets.every((target) => target !== undefined)
      ? { origin, isPattern: isMany, targets }
      : undefined;
  }

  #target(database: RawDatabase, raw: RawTarget, origin: string, isMany: boolean): TargetConfig | undefined {
    const { replica, store } = raw;
    if ((replica === undefined) === (store === undefined))
      return this.#wrong(
        raw,
        'store',
        replica === undefined ? 'neither replica nor store' : 'replica and store',
        'one of replica and store',
      );
    const schedule = raw.schedule ?? database.schedule;
    if (schedule === undefined)
      return this.#wrong(raw, 'schedule', 'no schedule', 'a schedule of the target or of its database');
    if (schedule.kind === 'follow' && store !== undefined)
      return this.#wrong(
        raw,
        'schedule',
        'follow',
        'a time or a cron expression for a store; only a replica follows',
      );
    const kind = store !== undefined ? 'store' : schedule.kind === 'follow' ? 'follow' : 'replica';
    if (!this.#fits(raw, kind)) return undefined;
    const place =
      kind === 'store' ? this.#store(raw, store ?? '') : this.#replica(raw, replica ?? '', origin, isMany);
    const pingUrl = this.#ping(raw) ?? this.#ping(database);
    if (place === undefined) return undefined;
    return {
      kind,
      place,
      schedule,
      verifyMs: raw.verify ?? database.verify,
      lateAfterMs: raw['late-after'] ?? database['late-after'],
      hooks: { ...NO_HOOKS, ...database.hooks, ...raw.hooks },
      pingUrl,
      options: (raw.options ?? {}) as Readonly<Record<string, OptionValue>>,
      keep: (raw.keep ?? {}) as Readonly<Record<string, string | readonly string[]>>,
      prune: raw.prune ?? false,
      passwordFile: this.#path(raw['password-file']),
      passwordCommand: raw['password-command'],
    };
  }

  /** Finds fields and options that the kind of target does not have. */
  #fits(raw: RawTarget, kind: TargetConfig['kind']): boolean {
    let fits = true;
    if (kind !== 'store')
      for (const field of ['keep', 'prune', 'password-file', 'password-command'] as const)
        if (raw[field] !== undefined)
          fits = this.#wrong(raw, field, `${field} of a replica`, `${field} only for a store`) ?? false;
    if (raw['password-file'] !== undefined && raw['password-command'] !== undefined)
      fits =
        this.#wrong(raw, 'password-command', 'password-file and password-command', 'one of them') ?? false;
    if (raw.keep !== undefined && Object.keys(raw.keep).length === 0)
      fits = this.#wrong(raw, 'keep', 'an empty policy', 'what to keep, such as daily: 7') ?? false;
    const allowed = Object.keys(TARGET_OPTIONS[kind]);
    for (const name of Object.keys(raw.options ?? {})) {
      if (allowed.includes(name)) continue;
      const what = kind === 'follow' ? 'a replica that follows' : `a ${kind}`;
      fits =
        this.#wrong(raw.options ?? {}, name, name, `an option of ${what}: ${allowed.join(', ')}`) ?? false;
    }
    return fits;
  }

  #replica(raw: RawTarget, text: string, origin: string, isMany: boolean): string | undefined {
    if (text === '-') return this.#wrong(raw, 'replica', undefined, 'a path or [user@]host:path');
    if (isMany && !text.includes('{name}'))
      return this.#wrong(raw, 'replica', undefined, 'a replica for each database, with {name} in its path');
    const place = this.#place(raw, 'replica', text);
    if (place === undefined) return undefined;
    if (localPath(place) === undefined && localPath(origin) === undefined)
      return this.#wrong(
        raw,
        'replica',
        undefined,
        'a path of this host: the database is on another host already',
      );
    if (isMany && localPath(place) !== undefined && dirname(place) === fixedFolder(origin))
      return this.#wrong(
        raw,
        'replica',
        undefined,
        'a replica in another folder than its database: each scan would copy the copies',
      );
    if (place === origin)
      return this.#wrong(raw, 'replica', undefined, 'another place than that of the database');
    if (this.#taken.has(place))
      return this.#wrong(raw, 'replica', undefined, 'a replica that no other target has');
    this.#taken.add(place);
    return place;
  }

  #store(raw: RawTarget, text: string): string | undefined {
    try {
      const place = storePlace(text);
      return isElsewhere(place) ? place : resolve(this.#folder, place);
    } catch {
      return this.#wrong(raw, 'store', undefined, 'a folder, [user@]host:path, s3:… or sftp:…');
    }
  }

  #place(raw: RawDatabase | RawTarget, field: string, text: string): string | undefined {
    try {
      const location = parseLocation(text);
      return location.kind === 'ssh' ? text : resolve(this.#folder, location.path);
    } catch {
      return this.#wrong(raw, field, undefined, 'a path or [user@]host:path');
    }
  }

  #ping(raw: RawDatabase | RawTarget): string | undefined {
    const file = this.#path(raw['ping-file']);
    if (file === undefined) return raw.ping?.href;
    if (raw.ping !== undefined) return this.#wrong(raw, 'ping-file', 'ping and ping-file', 'one of them');
    try {
      return parsePingUrl(readFileSync(file, 'utf8').trim()).href;
    } catch {
      return this.#wrong(raw, 'ping-file', undefined, 'a file that can be read and has a URL');
    }
  }

  #path(path: string | undefined): string | undefined {
    return path === undefined ? undefined : resolve(this.#folder, path);
  }

  #wrong(group: object, field: string, found: string | undefined, expected: string): undefined {
    this.#reading.faultOf(group, field, found, expected);
  }
}

const NO_HOOKS: Hooks = { before: undefined, after: undefined, failure: undefined, timeout: undefined };

/** The path of a place of this host; undefined for another host. */
function localPath(place: string): string | undefined {
  const location = parseLocation(place);
  return location.kind === 'ssh' ? undefined : location.path;
}

/** A folder's own name in a pattern. */
function escapePattern(folder: string): string {
  return folder.replaceAll(/[\\*?[\]{}]/g, '\\$&').replace(/\/$/, '');
}
