import { SqlsyncError, sanitizeText } from '../../errors.ts';
import type { PoolConnection } from '../../sqlite/pool-connection.ts';

type Define = (connection: PoolConnection) => void;

/** Functions of SQLite's extensions are not among those that it calls built in. */
const IS_THERE = 'SELECT 1 FROM pragma_function_list WHERE lower(name) = lower(?)';

/**
 * The functions that an application has defined for its SQL, on each connection of its thread. The worker threads of the
 * read pool lack them: a function cannot be passed to another thread.
 */
export class UserFunctions {
  readonly #hasThreads: boolean;
  readonly #definitions: Define[] = [];
  readonly #names = new Set<string>();
  readonly #connections = new Set<PoolConnection>();

  constructor(hasThreads: boolean) {
    this.#hasThreads = hasThreads;
  }

  /** Gives all functions to a new connection, which also gets those that are defined later. */
  adopt(connection: PoolConnection): void {
    for (const define of this.#definitions) define(connection);
    this.#connections.add(connection);
  }

  /**
   * Defines a function on all connections. Throws USAGE while a result is being read, after which the call may be
   * repeated, and for the name of a function of SQLite if there are threads, which would go on with SQLite's own.
   */
  define(name: string, define: Define): void {
    for (const connection of this.#connections) if (!connection.open) this.#connections.delete(connection);
    // All or none: otherwise the same text would have two results.
    for (const connection of this.#connections) requireIdle(connection, name);
    const [writer] = this.#connections;
    const isOwn = this.#names.has(name.toLowerCase());
    if (this.#hasThreads && !isOwn && writer?.prepare(IS_THERE).get(name) !== undefined) {
      throw new SqlsyncError('USAGE', `${sanitizeText(name, 100)} is a function of SQLite`, {
        hint: 'Give yours another name, or open the database without `threads`: they cannot have functions of yours.',
      });
    }
    for (const connection of this.#connections) define(connection);
    this.#definitions.push(define);
    this.#names.add(name.toLowerCase());
  }

  /** True for the error of a statement that a connection without these functions could not prepare. */
  areMissedBy(error: unknown): boolean {
    if (this.#names.size === 0 || !(error instanceof Error)) return false;
    // The second is for the expression of a generated column.
    const found = /^(?:no such function: (.+)|unknown function: (.+)\(\))$/.exec(error.message);
    const name = found?.[1] ?? found?.[2];
    return name !== undefined && this.#names.has(name.toLowerCase());
  }
}

/** better-sqlite3 answers no PRAGMA while a result is being read, and defines no function then. */
function requireIdle(connection: PoolConnection, name: string): void {
  try {
    connection.pragma('query_only');
  } catch (error) {
    if (!(error instanceof TypeError) || !error.message.includes('busy')) throw error;
    throw new SqlsyncError(
      'USAGE',
      `the function ${sanitizeText(name, 100)} was defined while a result was being read`,
      { hint: 'Define functions right after openDatabase(), before the first query.', cause: error },
    );
  }
}
