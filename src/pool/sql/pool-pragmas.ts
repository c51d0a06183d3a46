import { SqlsyncError } from '../../errors.ts';
import type { PoolConnection } from '../../sqlite/pool-connection.ts';
import { pragmaSettings } from './sql-keywords.ts';

/** The settings that the pools rely on, with the harmless values in all their spellings. */
const POOL_PRAGMAS: Readonly<Record<string, readonly string[]>> = {
  busy_timeout: ['0'],
  foreign_keys: ['on', '1', 'true', 'yes'],
  journal_mode: ['wal'],
  locking_mode: ['normal'],
  query_only: ['off', '0', 'false', 'no'],
  synchronous: ['normal', '1', 'full', '2', 'extra', '3'],
};

const HINTS: Readonly<Record<string, string>> = {
  busy_timeout: 'How long a write waits is a matter of busyTimeoutMs and deadlineMs.',
  foreign_keys:
    'PRAGMA defer_foreign_keys = ON puts the checks off to the end of a transaction; a migration that needs them off ' +
    'runs in db.write.changeSchema(fn).',
  synchronous: 'NORMAL, FULL and EXTRA are allowed: with OFF a power cut may damage the database.',
};

/** True if a text may hold a PRAGMA that sets a value, in any form. */
export function mayChangePragmas(sql: string): boolean {
  return /pragma/i.test(sql) && /[=(]/.test(sql);
}

/**
 * Throws USAGE for PRAGMAs that would break the promises of the pools: a busy timeout blocks the event loop; without
 * WAL or with an exclusive lock readers wait for writers; and what one write sets holds for all later ones.
 */
export function refusePoolPragmas(sql: string): void {
  if (!mayChangePragmas(sql)) return;
  for (const { name, value } of pragmaSettings(sql)) {
    const isAllowed = !Object.hasOwn(POOL_PRAGMAS, name) || POOL_PRAGMAS[name]?.includes(value.toLowerCase());
    if (isAllowed !== true) throw pragmaRefusal(name, value);
  }
}

/**
 * Runs `act`. If that changed a setting that the pools rely on, undoes the change and throws USAGE. The texts were
 * checked before; this checks what SQLite has made of them. It executes most PRAGMAs while it prepares them.
 */
export function keepPoolPragmas<T>(connection: PoolConnection, act: () => T): T {
  const before = poolPragmas(connection);
  let failure: { readonly error: unknown } | undefined;
  let result: T | undefined;
  try {
    result = act();
  } catch (error) {
    failure = { error };
  }
  const changed = poolPragmas(connection).filter(
    ({ name, value }, index) =>
      value !== before[index]?.value && POOL_PRAGMAS[name]?.includes(value) !== true,
  );
  for (const { name } of changed) {
    connection.pragma(`${name} = ${before.find((one) => one.name === name)?.value}`);
  }
  if (changed[0] !== undefined) throw pragmaRefusal(changed[0].name, changed[0].value, failure?.error);
  if (failure !== undefined) throw failure.error;
  return result as T;
}

function poolPragmas(connection: PoolConnection): { readonly name: string; readonly value: string }[] {
  return Object.keys(POOL_PRAGMAS).map((name) => ({
    name,
    value: String(connection.pragma(name, { simple: true })),
  }));
}

function pragmaRefusal(name: string, value: string, cause?: unknown): SqlsyncError {
  return new SqlsyncError('USAGE', `PRAGMA ${name} = ${value} as SQL; only openDatabase may set it`, {
    hint: HINTS[name] ?? 'Leave it as it is: the pools rely on it.',
    cause,
  });
}
