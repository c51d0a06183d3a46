import { SqlsyncError, systemErrorCode } from '../errors.ts';
import type { PoolConnection } from '../sqlite/pool-connection.ts';
import { filePathOf, openWriteConnection } from '../sqlite/pool-connection.ts';
import { shortageOf } from '../files/shortage.ts';
import type { Admission } from './admission/types.ts';
import { noAdmission, openAdmission } from './admission/admission.ts';
import { checkPlace } from './opening-place.ts';
import { openingError, requireWritable } from './opening-error.ts';
import { openReadPool } from './read/read-pool.ts';
import { retryWhileBusy } from './retry.ts';
import type { PoolSettings } from './settings.ts';
import { databasePath, poolSettings } from './settings.ts';
import type { Database, DatabaseOptions } from './types.ts';
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
  const absolute = databasePath(path);
  await checkPlace(absolute, settings);
  const connection = await connect(absolute, settings);
  try {
    requireWritable(absolute);
    // A link may lead elsewhere by the time the next reader is opened.
    const filePath = filePathOf(connection);
    const writer = new Writer(connection, settings.statementCacheSize, internals.begin);
    const read = openReadPool(absolute, filePath, settings);
    const admission = settings.admission === 'none' ? noAdmission : openAdmission(filePath);
    const walCare = new WalCare(absolute, filePath, settings.walLimitBytes);
    return new PooledDatabase(absolute, settings, { writer, read, admission, walCare });
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
}

class PooledDatabase implements Database {
  readonly path: string;
  readonly read: ReturnType<typeof openReadPool>;
  readonly write: QueuedWritePool;
  readonly #parts: Parts;
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
    const { writer, read, admission, walCare } = this.#parts;
    await Promise.all([this.write.close(), read.close()]);
    walCare.close();
    await admission.close();
    // Last: a connection that can write removes the WAL when it closes, one that only reads would leave it behind.
    writer.close();
  }
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
