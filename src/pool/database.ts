import { SqlsyncError, systemErrorCode } from '../errors.ts';
import type { PoolConnection } from '../sqlite/pool-connection.ts';
import { filePathOf, openWriteConnection } from '../sqlite/pool-connection.ts';
import { shortageOf } from '../files/shortage.ts';
import type { Admission } from './admission/types.ts';
import { noAdmission, openAdmission } from './admission/admission.ts';
import { backupDatabase } from './backup.ts';
import {
  AGGREGATE_OPTIONS,
  FUNCTION_OPTIONS,
  functionFault,
  optionsFault,
  valueInWords,
} from './call-options.ts';
import { checkPlace } from './opening-place.ts';
import { openingError, requireWritable } from './opening-error.ts';
import { closedError } from './pool-errors.ts';
import { openReadPool } from './read/read-pool.ts';
import { retryWhileBusy } from './retry.ts';
import type { PoolSettings } from './settings.ts';
import { databasePath, poolSettings } from './settings.ts';
import { UserFunctions } from './sql/user-functions.ts';
import { MEMORY, MEMORY_SETTINGS, temporaryPlace } from './temporary-place.ts';
import type { AggregateOptions, Database, DatabaseOptions, FunctionOptions, SqlFunction } from './types.ts';
import { describePools } from './describe.ts';
import { inspectDatabase } from './inspect.ts';
import { WalCare } from './wal-care.ts';
import { QueuedWritePool } from './write/write-pool.ts';
import { Writer } from './write/writer.ts';

/**
 * The size of the WAL that SQLite keeps when it restarts it; a smaller one would have to grow again for the next large
 * WAL.
 */
const WAL_KEPT_BYTES = 16 * 1024 * 1024;

/** Settings that only tests change. */
export interface DatabaseInternals {
  /** The statement that begins a transaction. */
  readonly begin: string;
}

/**
 * Opens a database with its pools, in WAL mode, and creates it if it does not exist.
 *
 *     const db = await openDatabase('app.db');
 *     const users = await db.read.all<User>('SELECT * FROM user WHERE age > ?', [18]);
 *     await db.write.transaction(async (tx) => { await tx.run('UPDATE …'); });
 *     await db.close();
 *
 * Open a database once in a process and share it. No other library may have the same file open in this process, and the
 * process may not open, copy or read the file itself: SQLite's POSIX locks would be lost.
 *
 * @param path Path of the file, or its `file:` URL. A relative path is relative to the working directory at the call.
 * `:memory:` is a new database for tests, which is gone once it is closed.
 * @throws SqlsyncError USAGE for a wrong option, DATABASE_UNUSABLE for a file that cannot be opened, BUSY_TIMEOUT if
 * other programs keep it locked, BINDING_MISSING, BINDING_BROKEN, NODE_UNSUPPORTED.
 */
export function openDatabase(path: string | URL, options: DatabaseOptions = {}): Promise<Database> {
  return openWith(path, options, { begin: 'BEGIN IMMEDIATE' });
}

/** {@link openDatabase}, with the parts that tests replace. */
export async function openWith(
  path: string | URL,
  options: DatabaseOptions,
  internals: DatabaseInternals,
): Promise<Database> {
  const settings = poolSettings(options);
  if (path !== MEMORY) return openAt(databasePath(path), settings, internals, () => {});
  const place = temporaryPlace();
  try {
    return await openAt(place.path, { ...settings, ...MEMORY_SETTINGS }, internals, () => place.remove());
  } catch (error) {
    place.remove();
    throw error;
  }
}

async function openAt(
  absolute: string,
  settings: PoolSettings,
  internals: DatabaseInternals,
  closed: () => void,
): Promise<Database> {
  await checkPlace(absolute, settings);
  const connection = await connect(absolute, settings);
  try {
    requireWritable(absolute);
    // A link may lead elsewhere by the time the next reader is opened.
    const filePath = filePathOf(connection);
    const functions = new UserFunctions(settings.threads > 0);
    functions.adopt(connection);
    const writer = new Writer(connection, settings.statementCacheSize, internals.begin);
    const read = openReadPool(absolute, filePath, { ...settings, functions });
    let opened: PooledDatabase | undefined;
    const describe = (): string =>
      opened === undefined ? '' : describePools(opened.write.stats(), opened.read.stats());
    const admission = settings.admission === 'none' ? noAdmission : openAdmission(filePath, describe);
    const walCare = new WalCare(absolute, filePath, settings.walLimitBytes);
    opened = new PooledDatabase(absolute, settings, { writer, read, admission, walCare, functions, closed });
    return opened;
  } catch (error) {
    connection.close();
    throw error;
  }
}

interface Parts {
  readonly writer: Writer;
  readonly read: ReturnType<typeof openReadPool>;
  readonly admission: Admission;
  readonly walCare: WalCare;
  readonly functions: UserFunctions;
  /** Called when all connections are closed. */
  readonly closed: () => void;
}

class PooledDatabase implements Database {
  readonly path: string;
  readonly read: ReturnType<typeof openReadPool>;
  readonly write: QueuedWritePool;
  readonly #parts: Parts;
  /** Copies that are being made. */
  readonly #backups = new Set<Promise<unknown>>();
  #closing: Promise<void> | undefined;

  constructor(path: string, settings: PoolSettings, parts: Parts) {
    const { writer, read, admission, walCare } = parts;
    this.path = path;
    this.read = read;
    this.#parts = parts;
    const write = new QueuedWritePool({
      path,
      writer,
      admission,
      walCare,
      busyTimeoutMs: settings.busyTimeoutMs,
    });
    walCare.watch({
      get isIdle(): boolean {
        return write.isIdle;
      },
      truncateWal: () => writer.truncateWal(),
    });
    this.write = write;
  }

  function(name: string, ...rest: [SqlFunction] | [FunctionOptions, SqlFunction]): void {
    const [options, fn] = rest.length === 1 ? [{}, rest[0]] : rest;
    const fault =
      optionsFault('function()', options, FUNCTION_OPTIONS) ?? functionFault('function()', fn) ?? undefined;
    if (fault !== undefined) throw fault;
    // better-sqlite3 declares that its functions take and return anything.
    this.#define('function()', name, (connection) =>
      connection.function(name, defined(options), fn as never),
    );
  }

  aggregate<State>(name: string, options: AggregateOptions<State>): void {
    const fault =
      optionsFault('aggregate()', options, AGGREGATE_OPTIONS) ??
      functionFault('aggregate(), as its step,', options.step);
    if (fault !== undefined) throw fault;
    this.#define('aggregate()', name, (connection) => connection.aggregate(name, defined(options) as never));
  }

  #define(what: string, name: string, define: (connection: PoolConnection) => void): void {
    if (typeof name !== 'string' || name === '') {
      throw new SqlsyncError('USAGE', `${what} got the name ${valueInWords(name)}; expected a text`);
    }
    if (this.#closing !== undefined) throw closedError(`${this.path}: ${what} after close()`);
    this.#parts.functions.define(name, define);
  }

  async backup(path: string | URL): ReturnType<Database['backup']> {
    if (this.#closing !== undefined) throw closedError(`${this.path}: backup() after close()`);
    const copy = backupDatabase(this.path, path);
    this.#backups.add(copy);
    try {
      return await copy;
    } finally {
      this.#backups.delete(copy);
    }
  }

  stats(): ReturnType<Database['stats']> {
    const { walCare } = this.#parts;
    const { truncations, truncationsBusy } = walCare;
    return {
      write: this.write.stats(),
      read: this.read.stats(),
      wal: { bytes: walCare.bytes(), truncations, truncationsBusy },
    };
  }

  inspect(): ReturnType<Database['inspect']> {
    return inspectDatabase(this.path, () => this.stats());
  }

  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #close(): Promise<void> {
    const { writer, read, admission, walCare, closed } = this.#parts;
    await Promise.all([this.write.close(), read.close(), Promise.allSettled(this.#backups)]);
    walCare.close();
    await admission.close();
    // Last: a connection that can write removes the WAL when it closes, one that only reads would leave it behind.
    writer.close();
    closed();
  }
}

/** Without the options that are undefined: better-sqlite3 refuses them. */
function defined<Options extends object>(options: Options): { [Name in keyof Options]: Options[Name] } {
  return Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined)) as Options;
}

async function connect(path: string, settings: PoolSettings): Promise<PoolConnection> {
  const { busyTimeoutMs, create, safeIntegers, walLimitBytes } = settings;
  const journalSizeLimitBytes = Math.min(WAL_KEPT_BYTES, walLimitBytes);
  try {
    return await retryWhileBusy(
      () => openWriteConnection(path, { create, safeIntegers, journalSizeLimitBytes }),
      {
        timeoutMs: busyTimeoutMs,
        timedOut: (waitedMs, cause) =>
          new SqlsyncError(
            'BUSY_TIMEOUT',
            `${path}: could not be opened for ${Math.round(waitedMs)} ms: another program has it locked`,
            { hint: 'Allow more time with busyTimeoutMs, or end the other program.', cause },
          ),
      },
    );
  } catch (error) {
    const code = systemErrorCode(error);
    if (error instanceof SqlsyncError || code?.startsWith('SQLITE_') !== true) throw error;
    throw shortageOf(`${path} cannot be opened`, error) ?? openingError(path, create, error);
  }
}
