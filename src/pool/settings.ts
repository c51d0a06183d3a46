import { resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { SqlsyncError } from '../errors.ts';
import { checkPath } from '../files/path-names.ts';
import { valueInWords, unknownOption } from './call-options.ts';
import type { DatabaseOptions } from './types.ts';

/** The options with their defaults. */
export type PoolSettings = {
  readonly [Name in keyof DatabaseOptions]-?: Exclude<DatabaseOptions[Name], undefined>;
};

const DEFAULTS: PoolSettings = {
  busyTimeoutMs: 5000,
  readers: 4,
  threads: 0,
  admission: 'cooperative',
  walLimitBytes: 64 * 1024 * 1024,
  create: true,
  allowNetworkFileSystem: false,
  safeIntegers: false,
  statementCacheSize: 200,
};

/** The smallest values of the numeric options. */
const MINIMA = { busyTimeoutMs: 0, readers: 1, threads: 0, walLimitBytes: 0, statementCacheSize: 1 } as const;

/** Throws USAGE for a wrong option. */
export function poolSettings(options: DatabaseOptions): PoolSettings {
  if (typeof options !== 'object' || options === null) {
    throw usage(`openDatabase() got the options ${valueInWords(options)}; expected an object`);
  }
  const settings = { ...DEFAULTS };
  for (const [name, value] of Object.entries(options)) {
    if (!Object.hasOwn(DEFAULTS, name)) throw unknownOption('openDatabase()', name, DEFAULTS);
    if (value !== undefined) Object.assign(settings, { [name]: value });
  }
  for (const [name, value] of Object.entries(settings)) {
    const expected = expectedFor(name, value);
    if (expected !== undefined) {
      throw usage(`openDatabase(): ${name} is ${valueInWords(value)}; expected ${expected}`);
    }
  }
  return settings;
}

/** What an option should be; undefined if it is right. */
function expectedFor(name: string, value: unknown): string | undefined {
  if (name === 'admission') {
    return value === 'cooperative' || value === 'none' ? undefined : `'cooperative' or 'none'`;
  }
  const minimum = (MINIMA as Readonly<Record<string, number>>)[name];
  if (minimum === undefined) return typeof value === 'boolean' ? undefined : 'true or false';
  const isRight = Number.isSafeInteger(value) && (value as number) >= minimum;
  return isRight ? undefined : `a whole number from ${minimum}`;
}

/**
 * The absolute path. Throws USAGE for anything but a file.
 * @param what The method that got it.
 */
export function databasePath(path: string | URL, what = 'openDatabase()'): string {
  if (path instanceof URL && path.protocol === 'file:') return validPath(pathOfUrl(path, what));
  if (typeof path !== 'string') {
    throw usage(
      `${what} got the path ${valueInWords(path)}; expected that of a file, as a string or file: URL`,
    );
  }
  if (path === '' || path.startsWith('file:')) {
    throw usage(`${what} got the path ${JSON.stringify(path)}; expected that of a file`);
  }
  return resolve(validPath(path));
}

function validPath(path: string): string {
  checkPath(path);
  return path;
}

/** Percent-encoded bytes may not be UTF-8, and the URL may name another host. */
function pathOfUrl(url: URL, what: string): string {
  try {
    return fileURLToPath(url);
  } catch (error) {
    throw usage(
      `${what} got the URL ${valueInWords(url.href)}; expected the URL of a file on this host: ${String(error)}`,
    );
  }
}

function usage(message: string): SqlsyncError {
  return new SqlsyncError('USAGE', message, { hint: 'See the options of openDatabase.' });
}
