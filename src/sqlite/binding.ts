import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import BetterSqlite3 from 'better-sqlite3';
import { SqlsyncError } from '../errors.ts';
import {
  bindingRecipe,
  builtBindingPath,
  builtBindingsFolder,
  packageRoot,
  prebuiltBindingPath,
} from './binding-path.ts';
import { requireSupportedNode } from './node-version.ts';

/** A connection of better-sqlite3 on our binding, with nothing set yet; the classes beside this file configure it. */
export type RawDatabase = BetterSqlite3.Database;

export type RawOptions = Omit<BetterSqlite3.Options, 'nativeBinding'>;

/** The functions of `native/addon.c`. They throw RangeError for wrong arguments. */
export interface NativeFunctions {
  /** Writes 8 bytes to `out` at `offset` for each of the `count` runs of `unit` bytes at the start of `bytes`. */
  readonly keyedHashEach: (
    key: Uint8Array,
    bytes: Uint8Array,
    unit: number,
    count: number,
    out: Uint8Array,
    offset: number,
  ) => void;
  /** Writes 3 bytes to `out` at `offset` for each two blocks of 128 bytes. */
  readonly keyedHashBlocks: (key: Uint8Array, bytes: Uint8Array, out: Uint8Array, offset: number) => void;
  /**
   * Makes the file of one descriptor share the blocks of another's (a reflink). Returns 0, or the system's error number.
   */
  readonly cloneFile: (to: number, from: number) => number;
}

export interface Binding {
  readonly Database: typeof BetterSqlite3;
  /** The .node file; pass it as `nativeBinding` at every open. */
  readonly path: string;
  readonly native: NativeFunctions;
}

let loaded: Binding | undefined;

/**
 * Finds our native binding and tests once that `sqlite_dbpage` answers and that the hash is right. Throws
 * NODE_UNSUPPORTED, BINDING_MISSING or BINDING_BROKEN, each with the command to run next.
 */
export function loadBinding(): Binding {
  if (loaded !== undefined) return loaded;
  // Comes before anything native: a Node.js that is too old does not throw but crashes.
  requireSupportedNode();
  const path = findBinding();
  loaded = { Database: BetterSqlite3, path, native: proveBinding(path) };
  return loaded;
}

/**
 * Opens `filename` on our binding.
 * @param filename An absolute path, `:memory:`, or a `file:` URI that sqlsync itself has built (URIs carry options, so
 * a user's text never gets here unescaped). better-sqlite3 trims it: a path that begins or ends with white space has to
 * come as a URI.
 */
export function openRaw(filename: string, options: RawOptions = {}): RawDatabase {
  assert.equal(filename, filename.trim(), 'better-sqlite3 would open another file: pass a file: URI');
  assert(!('nativeBinding' in options), 'the binding is not a choice of the caller');
  const { Database, path } = loadBinding();
  return new Database(filename, { ...options, nativeBinding: path });
}

/**
 * What was built here comes before what the package carries, which may not work here. A checkout has only what it has
 * built, since its sources change.
 */
function findBinding(): string {
  const carried =
    process.env['SQLSYNC_BINDING_DIR'] === undefined && !isCheckout() ? prebuiltBindingPath() : undefined;
  if (carried !== undefined && !existsSync(builtBindingsFolder())) return carried;
  const built = builtBindingPath(bindingRecipe().key);
  if (existsSync(built)) return built;
  if (carried !== undefined) return carried;
  throw new SqlsyncError('BINDING_MISSING', `The SQLite binding of sqlsync is missing: ${built}`, {
    hint: `Build it (about a minute, once): ${buildCommand()}`,
  });
}

function proveBinding(path: string): NativeFunctions {
  try {
    proveDbpage(path);
    const native = createRequire(import.meta.url)(path) as Partial<NativeFunctions>;
    proveHash(native);
    return native;
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new SqlsyncError('BINDING_BROKEN', `The SQLite binding ${path} does not work: ${reason}`, {
      hint: `Build another one (about a minute, once): ${buildCommand()}`,
      cause: error,
    });
  }
}

function proveDbpage(path: string): void {
  const database = new BetterSqlite3(':memory:', { nativeBinding: path });
  try {
    database.exec('CREATE TABLE t (x)');
    const pages = database.prepare('SELECT max(pgno) FROM sqlite_dbpage').pluck().get();
    if (pages !== 2) throw new Error(`sqlite_dbpage counts ${String(pages)} pages where there are 2`);
  } finally {
    database.close();
  }
}

/** The hash of 33 bytes of 1 under a key of zeros; a miscompiled binding would compute another one. */
const KNOWN_HASH = 'b0f58c633a1dcb89';

function proveHash(native: Partial<NativeFunctions>): asserts native is NativeFunctions {
  const { keyedHashEach, keyedHashBlocks, cloneFile } = native;
  if (keyedHashEach === undefined || keyedHashBlocks === undefined || cloneFile === undefined)
    throw new Error('it lacks functions of native/addon.c');
  const hash = Buffer.alloc(8);
  keyedHashEach(new Uint8Array(64), new Uint8Array(33).fill(1), 33, 1, hash, 0);
  const found = hash.toString('hex');
  if (found !== KNOWN_HASH) throw new Error(`its hash of known bytes is ${found}, not ${KNOWN_HASH}`);
}

/** Only a checkout has the TypeScript sources. */
function isCheckout(): boolean {
  return existsSync(join(packageRoot(), 'src', 'sqlite', 'build-binding.ts'));
}

/** Only a checkout has npm scripts to build with. An installed package may have its command outside of PATH. */
function buildCommand(): string {
  if (isCheckout()) return 'npm run build:binding';
  return `node '${join(packageRoot(), 'bin', 'sqlsync.js').replaceAll("'", `'\\''`)}' build-binding`;
}
