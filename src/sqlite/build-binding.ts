import { spawn } from 'node:child_process';
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  realpathSync,
  renameSync,
  rmSync,
  statSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { SqlsyncError, toSqlsyncError } from '../errors.ts';
import {
  BINDING_NAME,
  bindingRecipe,
  builtBindingPath,
  cachedBindingPath,
  prebuildsFolder,
} from './binding-path.ts';
import type { BindingRecipe } from './binding-path.ts';
import { requireSupportedNode } from './node-version.ts';

/** How many lines of a failed compiler's output the error shows. */
const OUTPUT_TAIL_LINES = 15;

export interface BuiltBinding {
  readonly path: string;
  /** How the binding came there: it existed, it was copied from prebuilds/ or the user's cache, or it was compiled. */
  readonly origin: 'present' | 'prebuilt' | 'cache' | 'compiled';
}

export interface BuildBindingOptions {
  /** Called at the start of each step, with one line. */
  log?: (line: string) => void;
  /** For CC, CXX, PATH, XDG_CACHE_HOME, SQLSYNC_BINDING_DIR and SQLSYNC_NO_BINDING_CACHE. */
  env?: NodeJS.ProcessEnv;
}

/**
 * Makes sure that our native binding exists: better-sqlite3's own sources, compiled with `sqlite_dbpage`, and the hash
 * of pages in `native/`. It only needs a C and a C++ compiler: no download, no node-gyp, no headers of Node.js. A
 * binding appears at its place only after it passed its test, and in one step (rename), so that processes that build at
 * the same time do not disturb each other.
 */
export async function buildBinding(options: BuildBindingOptions = {}): Promise<BuiltBinding> {
  const { log = () => {}, env = process.env } = options;
  requireSupportedNode();
  const recipe = bindingRecipe();
  const path = builtBindingPath(recipe.key, env);
  const cached = cachedBindingPath(recipe.key, env);

  if (existsSync(path) && (await proofFailure(recipe, path)) === undefined) {
    log(`The SQLite binding is there: ${path}`);
    return { path, origin: 'present' };
  }
  const workDir = makeWorkDir(dirname(path));
  try {
    const built = join(workDir, BINDING_NAME);
    const prebuilt = join(prebuildsFolder(), recipe.key, BINDING_NAME);
    // A folder of the user's own is for what is built there: loading takes none from prebuilds/ then, either.
    const isForAll = env['SQLSYNC_BINDING_DIR'] === undefined;
    for (const [origin, source] of [
      ['prebuilt', isForAll && existsSync(prebuilt) ? prebuilt : undefined],
      ['cache', cached !== undefined && isTrustworthy(cached) ? cached : undefined],
    ] as const) {
      if (source === undefined) continue;
      copyFileSync(source, built);
      // Its C library may be newer than this one, as in a home folder that machines share: then compile after all.
      if ((await proofFailure(recipe, built)) !== undefined) continue;
      renameSync(built, path);
      log(`Copied the SQLite binding from ${source}`);
      return { path, origin };
    }
    log('Compiling the SQLite binding: about a minute, once for each version of its sources');
    await compile(recipe, workDir, built, env);
    const failure = await proofFailure(recipe, built);
    if (failure !== undefined) {
      throw new SqlsyncError(
        'BINDING_BUILD_FAILED',
        `The SQLite binding was compiled but does not work: ${failure}`,
        {
          hint: 'Set CC and CXX to compilers for the platform that this Node.js runs on, and build again.',
        },
      );
    }
    if (cached !== undefined) storeInCache(built, cached);
    renameSync(built, path);
    return { path, origin: 'compiled' };
  } finally {
    rmSync(workDir, { recursive: true, force: true });
  }
}

/** Compiles and links everything into `output`, with $CC and $CXX of `env`. Throws BINDING_BUILD_FAILED. */
export async function compile(
  recipe: BindingRecipe,
  workDir: string,
  output: string,
  env: NodeJS.ProcessEnv,
): Promise<void> {
  if (process.platform === 'win32') {
    throw new SqlsyncError('BINDING_BUILD_FAILED', 'The SQLite binding cannot be compiled on Windows.', {
      hint: 'Use Linux, macOS or WSL.',
    });
  }
  const cc = compilerCommand(env['CC'], 'cc');
  const cxx = compilerCommand(env['CXX'], 'c++');
  await Promise.all([requireCompiler(cc, 'C', env), requireCompiler(cxx, 'C++', env)]);

  const sqliteDir = join(recipe.betterSqliteRoot, 'deps', 'sqlite3');
  const sqliteObject = join(workDir, 'sqlite3.o');
  const addonObject = join(workDir, 'better_sqlite3.o');
  const includes = [...recipe.includeDirs, sqliteDir].map((folder) => `-I${folder}`);
  const addonSource = join(recipe.betterSqliteRoot, 'src', 'better_sqlite3.cpp');
  const native = recipe.nativeSources.map((source) => ({
    source,
    object: join(workDir, `${basename(source)}.o`),
  }));
  await Promise.all([
    runCompiler(cc, [...recipe.cFlags, '-c', join(sqliteDir, 'sqlite3.c'), '-o', sqliteObject], env),
    runCompiler(cxx, [...recipe.cxxFlags, ...includes, '-c', addonSource, '-o', addonObject], env),
    ...native.map(({ source, object }) =>
      runCompiler(cc, [...recipe.nativeFlags, ...includes, '-c', source, '-o', object], env),
    ),
  ]);
  const objects = [...native.map(({ object }) => object), addonObject, sqliteObject];
  await runCompiler(cxx, ['-shared', '-o', output, ...objects, ...recipe.linkFlags], env);
}

/** $CC and $CXX may carry arguments, as in `ccache gcc`. */
function compilerCommand(fromEnv: string | undefined, fallback: string): string[] {
  const words = (fromEnv ?? '').split(/\s+/).filter((word) => word !== '');
  return words.length > 0 ? words : [fallback];
}

/** Runs `compiler --version`: macOS has a `cc` that only reports that no compiler is installed. */
async function requireCompiler(command: string[], language: string, env: NodeJS.ProcessEnv): Promise<void> {
  const { status, output } = await run([...command, '--version'], env);
  if (status === 0) return;
  const variable = language === 'C' ? 'CC' : 'CXX';
  throw new SqlsyncError(
    'BINDING_BUILD_FAILED',
    `No working ${language} compiler: tried \`${command.join(' ')}\` (${lastLine(output)}).`,
    { hint: `Install one (${installAdvice()}), or set ${variable} to the one to use, and build again.` },
  );
}

function installAdvice(): string {
  if (process.platform === 'darwin') return '`xcode-select --install`';
  return 'Debian, Ubuntu: `apt-get install g++`; Alpine: `apk add g++`; Fedora: `dnf install gcc-c++`';
}

async function runCompiler(command: string[], args: string[], env: NodeJS.ProcessEnv): Promise<void> {
  const { status, output } = await run([...command, ...args], env);
  if (status === 0) return;
  const tail = output.trimEnd().split('\n').slice(-OUTPUT_TAIL_LINES).join('\n');
  throw new SqlsyncError('BINDING_BUILD_FAILED', `\`${command.join(' ')}\` failed (${status}):\n${tail}`, {
    hint: 'It takes a compiler for C++20 (GCC 10, Clang 13 or newer): install one, or set CC and CXX to it.',
  });
}

/**
 * Says what is wrong with the binding at `path`, or undefined. Tries it in a separate process, because a wrong one may
 * crash. It makes a database in a file and opens it again: a binding whose C library has another `errno` than SQLite's
 * code in it works in memory, and fails there.
 * @param node The command that runs a Node.js of the binding's platform.
 */
export async function proofFailure(
  recipe: BindingRecipe,
  path: string,
  node: readonly string[] = [process.execPath],
): Promise<string | undefined> {
  const script = `
    const [betterSqlite, nativeBinding, file] = process.argv.slice(1);
    const open = () => new (require(betterSqlite))(file, { nativeBinding });
    const hash = new Uint8Array(8);
    require(nativeBinding).keyedHashEach(new Uint8Array(32), Uint8Array.of(1), 1, 1, hash, 0);
    open().exec('PRAGMA journal_mode = WAL; CREATE TABLE t (x); INSERT INTO t VALUES (1)').close();
    const database = open().exec('UPDATE t SET x = 2');
    process.stdout.write('pages: ' + database.prepare('SELECT max(pgno) FROM sqlite_dbpage').pluck().get());
    database.close();`;
  const folder = mkdtempSync(join(tmpdir(), 'sqlsync-proof-'));
  const { status, output } = await run(
    [...node, '-e', script, recipe.betterSqliteRoot, path, join(folder, 'proof.db')],
    process.env,
  );
  rmSync(folder, { recursive: true, force: true });
  if (status === 0 && output.includes('pages: 2')) return undefined;
  const error = output.split('\n').find((line) => /^\w*Error: /.test(line));
  return error ?? `the process that tried it ended with ${status}`;
}

interface RunResult {
  /** The exit status, the signal's name, or the code of a failed start. */
  status: number | string;
  output: string;
}

function run(command: string[], env: NodeJS.ProcessEnv): Promise<RunResult> {
  const [program = '', ...args] = command;
  return new Promise((resolve) => {
    const child = spawn(program, args, { env, stdio: ['ignore', 'pipe', 'pipe'] });
    const chunks: Buffer[] = [];
    child.stdout.on('data', (chunk: Buffer) => chunks.push(chunk));
    child.stderr.on('data', (chunk: Buffer) => chunks.push(chunk));
    child.on('error', (error: NodeJS.ErrnoException) => {
      resolve({ status: error.code ?? 'error', output: error.message });
    });
    child.on('close', (code, signal) => {
      resolve({ status: code ?? signal ?? 'error', output: Buffer.concat(chunks).toString() });
    });
  });
}

function lastLine(text: string): string {
  return text.trimEnd().split('\n').at(-1) ?? '';
}

/** A fresh folder beside the binding's place, in the same file system, so that a rename publishes it. */
function makeWorkDir(bindingDir: string): string {
  try {
    mkdirSync(bindingDir, { recursive: true });
    return mkdtempSync(join(bindingDir, '.building-'));
  } catch (error) {
    throw new SqlsyncError(
      'BINDING_BUILD_FAILED',
      `The folder of the binding cannot be written: ${bindingDir}`,
      {
        hint: 'Build as the user who installed sqlsync, or set SQLSYNC_BINDING_DIR to a folder of yours, for the build and for each run.',
        cause: error,
      },
    );
  }
}

/** Takes native code only from a cache of this very user: `sudo` may keep another user's HOME. */
function isTrustworthy(cached: string): boolean {
  const uid = process.geteuid?.();
  return [cached, dirname(cached)].every((path) => {
    const stat = statSync(path, { throwIfNoEntry: false });
    return stat !== undefined && (uid === undefined || stat.uid === uid) && (stat.mode & 0o022) === 0;
  });
}

function storeInCache(built: string, cached: string): void {
  let workDir: string | undefined;
  try {
    mkdirSync(dirname(cached), { recursive: true, mode: 0o700 });
    workDir = mkdtempSync(join(dirname(cached), '.storing-'));
    const copy = join(workDir, BINDING_NAME);
    copyFileSync(built, copy);
    chmodSync(copy, 0o755);
    renameSync(copy, cached);
  } catch {
    // The cache only saves time: a home folder that is read-only or full must not fail the build.
  } finally {
    if (workDir !== undefined) rmSync(workDir, { recursive: true, force: true });
  }
}

/** The program: one line for what it does, two for an error. */
async function main(): Promise<number> {
  try {
    await buildBinding({ log: (line) => process.stdout.write(`${line}\n`) });
    return 0;
  } catch (thrown) {
    const error = toSqlsyncError(thrown);
    process.stderr.write(`${error.message}\n${error.hint ?? ''}\n`);
    return 1;
  }
}

// Not `import.meta.main`, which the oldest supported Node.js may lack.
const program = process.argv[1];
if (program !== undefined && existsSync(program) && realpathSync(program) === import.meta.filename) {
  process.exitCode = await main();
}
