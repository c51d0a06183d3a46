import { createHash } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { SqlsyncError, systemErrorCode } from '../errors.ts';
import { userCache } from '../files/user-cache.ts';

/**
 * What our native binding is built from, and where it lies. build-binding.ts builds it, binding.ts loads it.
 *
 *     <package root>/build/binding/<key>/sqlsync_sqlite3.node         built here: a checkout, or `sqlsync build-binding`
 *     <package root>/prebuilds/<key>/…                                carried by the published package
 *     ${XDG_CACHE_HOME:-~/.cache}/sqlsync/binding/<key>/…             a copy, so that the next `npm ci` need not compile
 *
 * The key names everything that decides the bytes (sources and flags), so that a binding of another better-sqlite3, or
 * of other sources of our own, is never loaded: its JavaScript and its binary share a private interface.
 */
export const BINDING_NAME = 'sqlsync_sqlite3.node';

/** The keys of the published package's bindings, by platform. The bundle has them; the sources do not. */
declare const SQLSYNC_BINDING_KEYS: Readonly<Record<string, string>> | undefined;

/** Everything that decides what the compiler has to do, except which compiler it is. */
export interface BindingRecipe {
  readonly key: string;
  /** The installed better-sqlite3, whose sources are compiled; never written to. */
  readonly betterSqliteRoot: string;
  /** Folders with the headers of Node-API and of its C++ wrapper. */
  readonly includeDirs: readonly string[];
  /**
   * Arguments for SQLite itself (C), for better-sqlite3's addon (C++), for our own sources (C), and for linking all.
   */
  readonly cFlags: readonly string[];
  readonly cxxFlags: readonly string[];
  readonly nativeFlags: readonly string[];
  readonly linkFlags: readonly string[];
  /** Our own sources. */
  readonly nativeSources: readonly string[];
}

/** Our own part of the binding: the addon, and the hash that it gives to JavaScript. */
const NATIVE_FILES = ['addon.c', 'keyed-hash.c', 'keyed-hash.h'];

/** @param platform As {@link platformName} says it; another one than this machine's is for a cross compiler. */
export function bindingRecipe(platform: string = platformName()): BindingRecipe {
  const betterSqlite = installedPackage('better-sqlite3');
  const addonApi = installedPackage('node-addon-api');
  const apiHeaders = installedPackage('node-api-headers');
  const defines = sqliteDefines(readFileSync(join(betterSqlite.root, 'deps', 'defines.gypi'), 'utf8'));
  // Hidden symbols, and -fno-gnu-unique for C++ inline variables: the application may have loaded another SQLite and
  // another better-sqlite3 into this process, and neither may use the other's code or data.
  const shared = ['-fPIC', '-fvisibility=hidden', '-DNDEBUG'];
  const cFlags = ['-O3', '-w', '-std=gnu99', ...shared, ...defines.map((define) => `-D${define}`)];
  const addonDefines = [
    'NAPI_VERSION=10',
    'NAPI_DISABLE_CPP_EXCEPTIONS',
    'NODE_API_SWALLOW_UNTHROWABLE_EXCEPTIONS',
    // Node.js finds our addon.c under these names. addon.c calls better-sqlite3's initializer under its new name.
    'napi_register_module_v1=sqlsync_better_sqlite3_init',
    'node_api_module_get_api_version_v1=sqlsync_better_sqlite3_api_version',
  ];
  const cxxFlags = ['-O2', '-std=c++20', ...shared, ...addonDefines.map((define) => `-D${define}`)];
  const nativeFlags = ['-O3', '-std=c11', '-Wall', '-Wextra', ...shared, '-DNAPI_VERSION=10'];
  const linkFlags = platform.startsWith('darwin-') ? ['-undefined', 'dynamic_lookup'] : ['-Wl,-Bsymbolic'];
  linkFlags.push('-lpthread', '-ldl', '-lm');

  const versions = [betterSqlite.version, addonApi.version, apiHeaders.version];
  const native = NATIVE_FILES.map((name) => join(nativeFolder(), name));
  const texts = native.map((file) => readFileSync(file, 'utf8'));
  const hash = createHash('sha256')
    .update(JSON.stringify([versions, cFlags, cxxFlags, nativeFlags, linkFlags, texts]))
    .digest('hex');
  return {
    key: `${platform}-${betterSqlite.version}-${hash.slice(0, 12)}`,
    betterSqliteRoot: betterSqlite.root,
    includeDirs: [join(apiHeaders.root, 'include'), addonApi.root],
    cFlags,
    cxxFlags,
    nativeFlags,
    linkFlags,
    nativeSources: native.filter((file) => file.endsWith('.c')),
  };
}

/** The folder with our own C sources, which the published package carries too. */
function nativeFolder(): string {
  return join(packageRoot(), 'src', 'sqlite', 'native');
}

/** Where the build puts bindings. SQLSYNC_BINDING_DIR moves it, for an installation that its user cannot write. */
export function builtBindingsFolder(env: NodeJS.ProcessEnv = process.env): string {
  return env['SQLSYNC_BINDING_DIR'] ?? join(packageRoot(), 'build', 'binding');
}

export function builtBindingPath(key: string, env: NodeJS.ProcessEnv = process.env): string {
  return join(builtBindingsFolder(env), key, BINDING_NAME);
}

/** The folder of the bindings that the published package carries, one for each platform. */
export function prebuildsFolder(): string {
  return join(packageRoot(), 'prebuilds');
}

/**
 * The binding that the package carries for this platform and the installed better-sqlite3; undefined if there is none.
 * Needs no recipe: the sources of a published package do not change, and the bundle knows their keys.
 */
export function prebuiltBindingPath(): string | undefined {
  const platform = platformName();
  const key = typeof SQLSYNC_BINDING_KEYS === 'undefined' ? undefined : SQLSYNC_BINDING_KEYS[platform];
  const prefix = `${platform}-${installedPackage('better-sqlite3').version}-`;
  if (key?.startsWith(prefix) !== true) return undefined;
  const path = join(prebuildsFolder(), key, BINDING_NAME);
  return existsSync(path) ? path : undefined;
}

/** The per-user copy, or undefined when SQLSYNC_NO_BINDING_CACHE=1 disables it. */
export function cachedBindingPath(key: string, env: NodeJS.ProcessEnv = process.env): string | undefined {
  if (env['SQLSYNC_NO_BINDING_CACHE'] === '1') return undefined;
  return join(userCache(env), 'sqlsync', 'binding', key, BINDING_NAME);
}

/**
 * The folder of sqlsync's own package.json; this file runs from `src/` in a checkout and from `dist/src/` otherwise.
 */
export function packageRoot(): string {
  for (let folder = import.meta.dirname; ; folder = dirname(folder)) {
    if (packageName(folder) === 'sqlsync-db') return folder;
    if (folder === dirname(folder)) {
      throw new SqlsyncError(
        'INTERNAL',
        `sqlsync finds no package.json of its own above ${import.meta.dirname}.`,
        {
          hint: 'Install sqlsync again: its files must stay in their package.',
        },
      );
    }
  }
}

/** `linux-x64`, `linux-arm64-musl`, `darwin-arm64`, …: the platform that a binary depends on, besides its sources. */
export function platformName(): string {
  return `${process.platform}-${process.arch}${isMusl() ? '-musl' : ''}`;
}

/**
 * better-sqlite3's own settings, with URI file names (for immutable=1) and sqlite_dbpage added. Synchronous is EXTRA
 * (3) for the connection that the backup API opens by itself. With FULL, a power cut after a commit that shortens a
 * database can bring its journal back without the pages that were cut off.
 */
function sqliteDefines(definesGypi: string): string[] {
  const own = [...definesGypi.matchAll(/^\s*'(\w+(?:=[^']*)?)',$/gm)].map((match) => match[1] ?? '');
  return [
    ...own.filter((define) => !define.startsWith('SQLITE_USE_URI=')),
    'SQLITE_USE_URI=1',
    'SQLITE_ENABLE_DBPAGE_VTAB',
    'SQLITE_DEFAULT_SYNCHRONOUS=3',
  ];
}

function installedPackage(name: string): { root: string; version: string } {
  const manifest = createRequire(import.meta.url).resolve(`${name}/package.json`);
  const { version } = JSON.parse(readFileSync(manifest, 'utf8')) as { version: string };
  return { root: dirname(manifest), version };
}

function packageName(folder: string): string | undefined {
  try {
    return (JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8')) as { name?: string }).name;
  } catch (error) {
    // A process that may open no more files has not looked.
    if (['EMFILE', 'ENFILE'].includes(systemErrorCode(error) ?? '')) throw error;
    return undefined;
  }
}

function isMusl(): boolean {
  if (process.platform !== 'linux') return false;
  try {
    const found = isMuslByMaps(readFileSync('/proc/self/maps', 'latin1'));
    if (found !== undefined) return found;
  } catch {
    // No /proc.
  }
  const report = process.report as typeof process.report & { excludeNetwork: boolean };
  const { excludeNetwork } = report;
  // Otherwise it looks up the names of all peers to which the application is connected.
  report.excludeNetwork = true;
  const { header } = report.getReport() as { header: { glibcVersionRuntime?: string } };
  report.excludeNetwork = excludeNetwork;
  return header.glibcVersionRuntime === undefined;
}

/**
 * Whether a process with these files in its memory, the text of its `/proc/self/maps`, uses musl. Its loader decides:
 * a program for glibc that Alpine's gcompat runs has musl's, and glibc's is only a name there. Undefined if there is
 * neither. Pure.
 */
export function isMuslByMaps(maps: string): boolean | undefined {
  if (/\/ld-musl-[^/\s]*\.so\.1$/m.test(maps)) return true;
  return /\/(?:ld-linux[^/\s]*\.so\.\d|libc\.so\.6|(?:ld|libc)-2\.\d+\.so)$/m.test(maps) ? false : undefined;
}
