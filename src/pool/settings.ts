import { resolve } from 'node:path';
import { SqlsyncError } from '../errors.ts';
import type { DatabaseOptions } from './types.ts';

/** The options with their defaults. */
export type PoolSettings = Required<DatabaseOptions>;

const DEFAULTS: PoolSettings = {
  busyTimeoutMs: 5000,
  readers: 4,
  threads: 0,
  admission: 'cooperative',
  walLimitBytes: 64 * 1024 * 1024,
  create: true,
  safeIntegers: false,
  statementCacheSize: 200,
};

/** Throws USAGE for an option that is not what it should be. */
export function poolSettings(options: DatabaseOptions): PoolSettings {
  const settings = { ...DEFAULTS };
  for (const [name, value] of Object.entries(options)) {
    if (!(name in DEFAULTS)) throw usage(`an option "${name}" of openDatabase, which there is not`);
    if (value !== undefined) Object.assign(settings, { [name]: value });
  }
  for (const [name, min] of [
    ['busyTimeoutMs', 0],
    ['readers', 1],
    ['threads', 0],
    ['walLimitBytes', 0],
    ['statementCacheSize', 1],
  ] as const) {
    const value = settings[name];
    if (!Number.isSafeInteger(value) || value < min) {
      throw usage(`${name} is ${String(value)}, where a whole number from ${min} is expected`);
    }
  }
  if (settings.admission !== 'cooperative' && settings.admission !== 'none') {
    throw usage(`admission is ${String(settings.admission)}, where 'cooperative' or 'none' is expected`);
  }
  return settings;
}

/** Absolute. Throws USAGE for what is no file. */
export function databasePath(path: string): string {
  if (path === '' || path === ':memory:' || path.startsWith('file:')) {
    throw usage(`openDatabase(${JSON.stringify(path)}), where the path of a file is expected`);
  }
  return resolve(path);
}

function usage(message: string): SqlsyncError {
  return new SqlsyncError('USAGE', message, { hint: 'See the options of openDatabase.' });
}
