import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import BetterSqlite3 from 'better-sqlite3';
import { SqlsyncError } from '../errors.ts';
import { bindingRecipe, builtBindingPath, packageRoot, prebuiltBindingPath } from './binding-path.ts';
import { requireSupportedNode } from './node-version.ts';

/** A connection of better-sqlite3 on our binding, with nothing set yet; the classes beside this file make it ours. */
export type RawDatabase = BetterSqlite3.Database;

export type RawOptions = Omit<BetterSqlite3.Options, 'nativeBinding'>;

export interface Binding {
  readonly Database: typeof BetterSqlite3;
  /** The .node file, to be passed as `nativeBinding` at every open. */
  readonly path: string;
}

let loaded: Binding | undefined;

/**
 * Finds our native binding and proves, once, that `sqlite_dbpage` answers.
 * Throws NODE_UNSUPPORTED, BINDING_MISSING or BINDING_BROKEN, each with the command to run next.
 */
export function loadBinding(): Binding {
  if (loaded !== undefined) return loaded;
  // Before anything native is touched: a too old Node.js does not throw but crash.
  requireSupportedNode();
  const path = findBinding();
  proveDbpage(path);
  loaded = { Database: BetterSqlite3, path };
  return loaded;
}

/**
 * Opens `filename` on our binding.
 * @param filename An absolute path, `:memory:`, or a `file:` URI that sqlsync itself has built (URIs carry options,
 * so a user's text never gets here unescaped). better-sqlite3 trims it: a path that begins or ends with white
 * space has to come as a URI.
 */
export function openRaw(filename: string, options: RawOptions = {}): RawDatabase {
  assert.equal(filename, filename.trim(), 'better-sqlite3 would open another file: pass a file: URI');
  assert(!('nativeBinding' in options), 'the binding is not a choice of the caller');
  const { Database, path } = loadBinding();
  return new Database(filename, { ...options, nativeBinding: path });
}

function findBinding(): string {
  const built = builtBindingPath(bindingRecipe().key);
  if (existsSync(built)) return built;
  if (process.env['SQLSYNC_BINDING_DIR'] === undefined) {
    const prebuilt = prebuiltBindingPath();
    if (existsSync(prebuilt)) return prebuilt;
  }
  throw new SqlsyncError('BINDING_MISSING', `The SQLite binding of sqlsync is not there: ${built}`, {
    hint: `Build it (about a minute, once): ${buildCommand()}`,
  });
}

function proveDbpage(path: string): void {
  try {
    const database = new BetterSqlite3(':memory:', { nativeBinding: path });
    try {
      database.exec('CREATE TABLE t (x)');
      const pages = database.prepare('SELECT max(pgno) FROM sqlite_dbpage').pluck().get();
      if (pages !== 2) throw new Error(`sqlite_dbpage counts ${String(pages)} pages where there are 2`);
    } finally {
      database.close();
    }
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new SqlsyncError('BINDING_BROKEN', `The SQLite binding ${path} does not work: ${reason}`, {
      hint: `Remove that file and build it again: ${buildCommand()}`,
      cause: error,
    });
  }
}

/** Only a checkout has the TypeScript sources and npm scripts to build with. */
function buildCommand(): string {
  return existsSync(join(packageRoot(), 'src', 'sqlite', 'build-binding.ts'))
    ? 'npm run build:binding'
    : 'npx sqlsync build-binding';
}
