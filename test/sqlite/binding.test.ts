import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import type { ChildProcessByStdio } from 'node:child_process';
import { once } from 'node:events';
import {
  appendFileSync,
  chmodSync,
  copyFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { delimiter, dirname, join } from 'node:path';
import { createInterface } from 'node:readline';
import type { Readable } from 'node:stream';
import { text } from 'node:stream/consumers';
import { afterEach, beforeEach, describe, test } from 'node:test';
import {
  BINDING_NAME,
  bindingRecipe,
  builtBindingPath,
  packageRoot,
  platformName,
} from '../../src/sqlite/binding-path.ts';
import { loadBinding, openRaw } from '../../src/sqlite/binding.ts';
import { NODE_VERSION_MIN, requireSupportedNode } from '../../src/sqlite/node-version.ts';

const ROOT = packageRoot();
const BUILD_PROGRAM = join(ROOT, 'src', 'sqlite', 'build-binding.ts');
const BIN = join(ROOT, 'bin', 'sqlsync.js');
const { key, betterSqliteRoot } = bindingRecipe();
const betterSqlite3 = createRequire(import.meta.url)('better-sqlite3') as typeof import('better-sqlite3');

let folder = '';
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'sqlsync-binding-'));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

describe('the loaded binding', () => {
  test('the loaded binding answers sqlite_dbpage with the bytes of the file', () => {
    const path = join(folder, 'a.db');
    const database = openRaw(path);
    database.exec('CREATE TABLE t (x); INSERT INTO t VALUES (1)');
    const pages = database.prepare('SELECT data FROM sqlite_dbpage ORDER BY pgno').pluck().all() as Buffer[];
    database.close();
    assert.equal(pages.length, 2);
    assert.deepEqual(Buffer.concat(pages), readFileSync(path));
  });

  test('the binding is found beside better-sqlite3, never inside it', () => {
    const { path } = loadBinding();
    assert.ok(path.startsWith(ROOT));
    assert.ok(!path.startsWith(betterSqliteRoot));
    assert.equal(existsSync(join(betterSqliteRoot, 'build')), false);
  });

  test('the binding lives in one process with that of better-sqlite3 itself, which stays as it was', () => {
    const ours = openRaw(join(folder, 'ours.db'));
    const theirs = new betterSqlite3(join(folder, 'theirs.db'));
    for (const database of [ours, theirs]) {
      database.exec('CREATE TABLE t (x); INSERT INTO t VALUES (42)');
      assert.deepEqual(database.prepare('SELECT x FROM t').get(), { x: 42 });
    }
    const addons = Object.keys(createRequire(import.meta.url).cache).filter((file) => file.endsWith('.node'));
    assert.ok(
      addons.some((file) => file.startsWith(join(betterSqliteRoot, 'prebuilds'))),
      addons.join(),
    );
    assert.throws(() => theirs.prepare('SELECT * FROM sqlite_dbpage'), /no such table: sqlite_dbpage/);
    assert.equal(ours.prepare('SELECT count(*) FROM sqlite_dbpage').pluck().get(), 2);
    ours.close();
    theirs.close();
  });

  test('the binding opens URIs, so that a file can be opened as immutable', () => {
    const path = join(folder, 'a.db');
    openRaw(path).exec('CREATE TABLE t (x)').close();
    const database = openRaw(`file:${path}?immutable=1`, { readonly: true });
    assert.deepEqual(database.prepare('SELECT count(*) AS n FROM t').get(), { n: 0 });
    database.close();
  });

  test('the binding refuses a path that better-sqlite3 would trim to another one', () => {
    assert.throws(() => openRaw(join(folder, 'a.db ')), assert.AssertionError);
  });
});

describe('loading', () => {
  test('loading reports BINDING_MISSING with the command that builds the binding', () => {
    const result = runLoadBinding({ SQLSYNC_BINDING_DIR: folder });
    assert.equal(result.code, 'BINDING_MISSING');
    assert.ok(result.message.includes(join(folder, key, BINDING_NAME)));
    assert.match(result.hint, /npm run build:binding/);
  });

  test('loading reports BINDING_BROKEN for a binding without sqlite_dbpage', () => {
    placeBinding(join(folder, key), defaultBinding());
    const result = runLoadBinding({ SQLSYNC_BINDING_DIR: folder });
    assert.equal(result.code, 'BINDING_BROKEN');
    assert.match(result.message, /no such table: sqlite_dbpage/);
    assert.match(result.hint, /npm run build:binding/);
  });

  test('loading reports BINDING_BROKEN for a binding without the hash of pages', () => {
    placeOurBinding(join(folder, key));
    const path = join(folder, key, BINDING_NAME);
    const bytes = readFileSync(path, 'latin1');
    writeFileSync(path, bytes.replaceAll('keyedHashBlocks\0', 'anotherFunction\0'), 'latin1');
    const result = runLoadBinding({ SQLSYNC_BINDING_DIR: folder });
    assert.equal(result.code, 'BINDING_BROKEN');
    assert.match(result.message, /lacks functions/);
    assert.match(result.hint, /Build another one .*: npm run build:binding/);
  });

  test('loading does not find a binding that was built of other sources of ours than the present ones', () => {
    const clone = join(folder, 'clone');
    for (const part of ['src', 'protocol', 'package.json'])
      cpSync(join(ROOT, part), join(clone, part), { recursive: true });
    symlinkSync(join(ROOT, 'node_modules'), join(clone, 'node_modules'));
    const keyOfClone = (): string => {
      const module = JSON.stringify(join(clone, 'src', 'sqlite', 'binding-path.ts'));
      const program = `import { bindingRecipe } from ${module}; process.stdout.write(bindingRecipe().key);`;
      return spawnSync(process.execPath, ['--input-type=module', '-e', program], { encoding: 'utf8' }).stdout;
    };
    assert.equal(keyOfClone(), key);
    const native = join(clone, 'src', 'sqlite', 'native');
    const keys = readdirSync(native).map((name) => {
      appendFileSync(join(native, name), '\n');
      return keyOfClone();
    });
    assert.equal(new Set([key, ...keys]).size, 4, keys.join());
  });

  test('loading reports BINDING_BROKEN for a file that is no binding at all', () => {
    placeBinding(join(folder, key), BUILD_PROGRAM);
    assert.equal(runLoadBinding({ SQLSYNC_BINDING_DIR: folder }).code, 'BINDING_BROKEN');
  });

  test('loading reports NODE_UNSUPPORTED before it loads anything native', () => {
    const result = runLoadBinding({ SQLSYNC_BINDING_DIR: folder }, ['-r', fakeNode('20.20.2', '9')]);
    assert.equal(result.code, 'NODE_UNSUPPORTED');
    assert.match(result.message, /22\.18 or newer, but this is Node\.js 20\.20\.2/);
  });
});

describe('the Node.js version', () => {
  test('the check of the Node.js version agrees with the promise of package.json', () => {
    const manifest = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as {
      engines: { node: string };
    };
    assert.equal(manifest.engines.node, `>=${NODE_VERSION_MIN}`);
    assert.ok(readFileSync(BIN, 'utf8').includes(`NODE_VERSION_MIN = '${NODE_VERSION_MIN}'`));
  });

  for (const [node, napi, isSupported] of [
    ['18.20.0', '9', false],
    ['22.17.1', '10', false],
    ['22.18.0', '10', true],
    ['23.5.0', '9', false],
    ['24.0.0', '10', true],
    ['100.1.0', '11', true],
  ] as const) {
    test(`${node} with Node-API ${napi} is ${isSupported ? 'supported' : 'refused'}`, () => {
      const check = (): void => requireSupportedNode({ node, napi });
      if (isSupported) assert.doesNotThrow(check);
      else assert.throws(check, { code: 'NODE_UNSUPPORTED' });
    });
  }

  /** The program in a checkout to which `npm ci` has not brought a Node.js yet. */
  function lonelyProgram(): string {
    const program = join(folder, 'lonely', 'bin', 'sqlsync.js');
    cpSync(BIN, program);
    writeFileSync(join(folder, 'lonely', 'package.json'), '{"type":"module"}');
    return program;
  }

  test('bin/sqlsync.js says what is needed and ends with 9 on a simulated old Node.js', () => {
    const args = ['-r', fakeNode('20.20.2', '9'), lonelyProgram()];
    assertRefusal(spawnSync(process.execPath, args, { encoding: 'utf8' }), '20.20.2');
  });

  const old = oldNodeOnPath();
  test(
    'bin/sqlsync.js says what is needed and ends with 9 on a real old Node.js',
    { skip: old === undefined },
    () => {
      assert(old !== undefined);
      assertRefusal(spawnSync(old.program, [lonelyProgram()], { encoding: 'utf8' }), old.version);
    },
  );

  test(
    'bin/sqlsync.js runs on a real old Node.js where `npm ci` has brought a new one',
    { skip: old === undefined },
    () => {
      assert(old !== undefined);
      const { status, stdout, stderr } = spawnSync(old.program, [BIN, '--version'], { encoding: 'utf8' });
      assert.deepEqual([status, stderr], [0, '']);
      assert.match(stdout, /^\d+\.\d+\.\d+\n$/);
    },
  );

  /** Starts a checkout whose program is `main`, on an old Node.js beside a new one. */
  function startOnOldNode(
    main: string,
    args: readonly string[] = [],
  ): ChildProcessByStdio<null, Readable, null> {
    const program = lonelyProgram();
    const root = dirname(dirname(program));
    for (const part of ['node_modules/node/bin', 'src/cli']) mkdirSync(join(root, part), { recursive: true });
    cpSync(script('node', `exec '${process.execPath}' "$@"`), join(root, 'node_modules/node/bin/node'));
    writeFileSync(join(root, 'src/cli/main.ts'), main);
    return spawn(process.execPath, ['-r', fakeNode('20.20.2', '9'), program, ...args], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
  }

  test('bin/sqlsync.js on an old Node.js gives its arguments to the new one, and ends with its status', async () => {
    const child = startOnOldNode(
      `export function main(args) { console.log(JSON.stringify([process.versions.node, ...args])); return 7; }`,
      ['a b', '--json'],
    );
    assert.deepEqual(JSON.parse(await text(child.stdout)), [process.versions.node, 'a b', '--json']);
    if (child.exitCode === null) await once(child, 'exit');
    assert.equal(child.exitCode, 7);
  });

  test('bin/sqlsync.js on an old Node.js passes a signal on once, as another kind than the group gets, and ends as the new one ends', async () => {
    const child = startOnOldNode(`export function main() {
      for (const name of ['SIGTERM', 'SIGHUP']) process.once(name, () => console.log(name));
      console.log('ready');
      return new Promise(() => { setInterval(() => {}, 1000); });
    }`);
    const lines = createInterface(child.stdout)[Symbol.asyncIterator]();
    assert.equal((await lines.next()).value, 'ready');
    child.kill('SIGTERM');
    assert.equal((await lines.next()).value, 'SIGHUP');
    child.kill('SIGHUP');
    assert.equal((await lines.next()).value, 'SIGTERM');
    child.kill('SIGHUP');
    if (child.exitCode === null && child.signalCode === null) await once(child, 'exit');
    assert.equal(child.signalCode, 'SIGTERM');
  });

  for (const [command, isPassed] of [
    ['backup', true],
    ['run', true],
    ['agent', false],
  ] as const) {
    test(`bin/sqlsync.js on an old Node.js ${isPassed ? 'passes on' : 'ignores'} a SIGINT that it alone gets for sqlsync ${command}`, async () => {
      const child = startOnOldNode(
        `export function main() {
          return new Promise((resolve) => {
            for (const name of ['SIGTERM', 'SIGHUP'])
              process.on(name, () => { console.log(name); clearInterval(alive); resolve(3); });
            const alive = setInterval(() => {}, 1000);
            console.log('ready');
          });
        }`,
        [command],
      );
      const lines = createInterface(child.stdout)[Symbol.asyncIterator]();
      assert.equal((await lines.next()).value, 'ready');
      child.kill('SIGINT');
      if (!isPassed) child.kill('SIGTERM');
      assert.equal((await lines.next()).value, isPassed ? 'SIGTERM' : 'SIGHUP');
      if (child.exitCode === null) await once(child, 'exit');
      assert.equal(child.exitCode, 3);
    });
  }
});

describe('bin/sqlsync.js', () => {
  function runClone(change: (clone: string) => void): {
    status: number | null;
    stdout: string;
    stderr: string;
  } {
    const clone = join(folder, 'clone');
    for (const part of ['bin', 'src', 'protocol', 'package.json'])
      cpSync(join(ROOT, part), join(clone, part), { recursive: true });
    change(clone);
    const { NODE_PATH: _, ...env } = process.env;
    const program = join(clone, 'bin', 'sqlsync.js');
    return spawnSync(process.execPath, [program, 'a.db', 'b.db'], { encoding: 'utf8', cwd: folder, env });
  }

  test('bin/sqlsync.js in a clone without its packages says to run `npm ci`, in one line, and ends with 9', () => {
    const { status, stdout, stderr } = runClone(() => {});
    assert.deepEqual([status, stdout], [9, '']);
    assert.match(stderr, /^sqlsync is not installed completely: run `npm ci` in \S*clone\b.*yargs.*\n$/);
  });

  for (const [what, code] of [
    ['throws', `export function main() { throw new Error('no\\nidea'); }`],
    ['fails later', `export function main() { setImmediate(() => { throw new Error('no idea'); }); }`],
  ] as const) {
    test(`bin/sqlsync.js ends with 70 and one line if all else ${what}: 1 would be an answer`, () => {
      const { status, stdout, stderr } = runClone((clone) =>
        writeFileSync(join(clone, 'src', 'cli', 'main.ts'), code),
      );
      assert.deepEqual([status, stdout], [70, '']);
      assert.match(stderr, /^sqlsync: no( idea)? \[INTERNAL\]\n$/);
    });
  }
});

describe('building', () => {
  test('building does nothing if the binding is there and answers', () => {
    placeOurBinding(join(folder, key));
    const result = runBuild({ CC: '/nonexistent' });
    assert.equal(result.status, 0, result.stderr);
    assert.match(result.stdout, /^The SQLite binding is there: .*\n$/);
  });

  test('building compiles C and C++ and links them, without nodedir, and proves the result', () => {
    const result = runBuild({ CC: pretendCompiler(), CXX: pretendCompiler() });
    assert.equal(result.status, 0, result.stderr);
    assert.match(result.stdout, /^Compiling the SQLite binding.*\n$/);
    assert.deepEqual(readdirSync(join(folder, key)), [BINDING_NAME], 'nothing but the binding is left');
    assert.deepEqual(runLoadBinding({ SQLSYNC_BINDING_DIR: folder }).code, 'loaded');
  });

  /** Builds in a checkout whose prebuilds/ has `binding` for this platform. */
  function runBuildBesides(binding: string): { status: number | null; stdout: string; stderr: string } {
    const clone = join(folder, 'clone');
    for (const part of ['src', 'protocol', 'package.json'])
      cpSync(join(ROOT, part), join(clone, part), { recursive: true });
    symlinkSync(join(ROOT, 'node_modules'), join(clone, 'node_modules'));
    placeBinding(join(clone, 'prebuilds', key), binding);
    const env = { CC: pretendCompiler(), CXX: pretendCompiler(), SQLSYNC_BINDING_DIR: undefined };
    return runBuild(env, join(clone, 'src', 'sqlite', 'build-binding.ts'));
  }

  test('building takes the binding of the same sources that prebuilds/ has', () => {
    const { status, stdout, stderr } = runBuildBesides(builtBindingPath(key));
    assert.equal(status, 0, stderr);
    assert.match(stdout, /^Copied the SQLite binding from .*\/prebuilds\/.*\n$/);
    assert.deepEqual(readdirSync(join(folder, 'clone', 'build', 'binding', key)), [BINDING_NAME]);
  });

  test('building compiles if the binding in prebuilds/ does not work here', () => {
    const { status, stdout, stderr } = runBuildBesides(defaultBinding());
    assert.equal(status, 0, stderr);
    assert.match(stdout, /^Compiling/);
  });

  test('building stores the binding in the cache of the user and takes it from there the next time', () => {
    const env = { SQLSYNC_NO_BINDING_CACHE: undefined, XDG_CACHE_HOME: join(folder, 'cache') };
    assert.equal(runBuild({ ...env, CC: pretendCompiler(), CXX: pretendCompiler() }).status, 0);
    rmSync(join(folder, key), { recursive: true });
    const second = runBuild({ ...env, CC: '/nonexistent' });
    assert.equal(second.status, 0, second.stderr);
    assert.match(second.stdout, /^Copied the SQLite binding from .*\n$/);
    assert.deepEqual(readdirSync(join(folder, key)), [BINDING_NAME]);
  });

  test('building does without a cache that cannot be written', () => {
    const notAFolder = join(folder, 'cache');
    writeFileSync(notAFolder, '');
    const env = { SQLSYNC_NO_BINDING_CACHE: undefined, XDG_CACHE_HOME: notAFolder };
    const result = runBuild({ ...env, CC: pretendCompiler(), CXX: pretendCompiler() });
    assert.equal(result.status, 0, result.stderr);
  });

  test('building takes no native code from a cache that others can write to', () => {
    const cached = join(folder, 'cache', 'sqlsync', 'binding', key);
    placeOurBinding(cached);
    chmodSync(cached, 0o777);
    const env = { SQLSYNC_NO_BINDING_CACHE: undefined, XDG_CACHE_HOME: join(folder, 'cache') };
    const result = runBuild({ ...env, CC: '/nonexistent' });
    assert.equal(result.status, 1);
  });

  test('building compiles if the cached binding does not work here', () => {
    placeBinding(join(folder, 'cache', 'sqlsync', 'binding', key), defaultBinding());
    const env = { SQLSYNC_NO_BINDING_CACHE: undefined, XDG_CACHE_HOME: join(folder, 'cache') };
    const result = runBuild({ ...env, CC: pretendCompiler(), CXX: pretendCompiler() });
    assert.equal(result.status, 0, result.stderr);
    assert.match(result.stdout, /^Compiling/);
  });

  for (const [name, env, tried] of [
    ['CC names a compiler that is not there', { CC: '/nonexistent/cc' }, '`/nonexistent/cc`'],
    ['CXX names a compiler that is not there', { CC: 'true', CXX: '/nonexistent/c++' }, '`/nonexistent/c++`'],
    ['the PATH has no compiler', { PATH: '/nonexistent' }, '`cc`'],
  ] as const) {
    test(`building says which compiler it tried and what to install when ${name}`, () => {
      const result = runBuild(env);
      assert.equal(result.status, 1);
      const [message, hint, ...rest] = result.stderr.split('\n');
      assert.ok(message?.includes(`tried ${tried}`), result.stderr);
      assert.match(
        hint ?? '',
        process.platform === 'darwin' ? /xcode-select --install/ : /apt-get install g\+\+/,
      );
      assert.deepEqual(rest, [''], 'two lines, no stack trace');
      assert.deepEqual(readdirSync(join(folder, key)), [], 'nothing is left');
    });
  }

  test("building shows the end of a failing compiler's output", () => {
    const failing = script(
      'failing-cc',
      `[ "$1" = --version ] && exit 0; echo "sqlite3.c:1: no such thing" >&2; exit 4`,
    );
    const result = runBuild({ CC: failing, CXX: failing });
    assert.equal(result.status, 1);
    assert.match(result.stderr, /failed \(4\):\nsqlite3\.c:1: no such thing\n.*C\+\+20/);
    assert.doesNotMatch(result.stderr, /^\s+at /m);
  });

  const slow =
    process.env['SQLSYNC_SLOW_TESTS'] === '1' ? false : 'SQLSYNC_SLOW_TESTS=1 compiles for real (a minute)';
  test(
    'building compiles a working binding from an empty start with the compilers of this machine',
    { skip: slow },
    () => {
      const result = runBuild({ CC: undefined, CXX: undefined });
      assert.equal(result.status, 0, result.stderr);
      assert.equal(runLoadBinding({ SQLSYNC_BINDING_DIR: folder }).code, 'loaded');
    },
  );
});

/** Runs the build program as npm would, but into `folder`, without a cache, and without npm's own settings. */
function runBuild(
  env: NodeJS.ProcessEnv,
  program = BUILD_PROGRAM,
): { status: number | null; stdout: string; stderr: string } {
  const inherited = Object.entries(process.env).filter(([name]) => !name.toLowerCase().startsWith('npm_'));
  return spawnSync(process.execPath, [program], {
    encoding: 'utf8',
    env: {
      ...Object.fromEntries(inherited),
      SQLSYNC_BINDING_DIR: folder,
      SQLSYNC_NO_BINDING_CACHE: '1',
      ...env,
    },
  });
}

interface LoadResult {
  /** `loaded`, or the code of the error. */
  code: string;
  message: string;
  hint: string;
}

/** Calls loadBinding() in a fresh process, since it succeeds only once in each. */
function runLoadBinding(env: NodeJS.ProcessEnv, nodeArgs: string[] = []): LoadResult {
  const program = `
    import { loadBinding } from ${JSON.stringify(new URL('../../src/sqlite/binding.ts', import.meta.url))};
    let result = { code: 'loaded', message: '', hint: '' };
    try { loadBinding(); } catch ({ code, message, hint }) { result = { code, message, hint }; }
    process.stdout.write(JSON.stringify(result));`;
  const { stdout, stderr } = spawnSync(
    process.execPath,
    [...nodeArgs, '--input-type=module', '-e', program],
    {
      encoding: 'utf8',
      env: { ...process.env, ...env },
    },
  );
  assert.notEqual(stdout, '', stderr);
  return JSON.parse(stdout) as LoadResult;
}

function assertRefusal(
  result: { status: number | null; stdout: string; stderr: string },
  version: string,
): void {
  assert.equal(result.status, 9);
  assert.equal(result.stdout, '');
  assert.ok(
    result.stderr.startsWith(`sqlsync needs Node.js 22.18 or newer, but this is Node.js ${version} (`),
  );
  assert.match(
    result.stderr,
    /\nInstall Node\.js 22\.18 or newer, or in a checkout of sqlsync run `npm ci`, which brings one\.\n$/,
  );
}

function placeOurBinding(target: string): void {
  placeBinding(target, builtBindingPath(key));
}

function placeBinding(target: string, source: string): void {
  mkdirSync(target, { recursive: true, mode: 0o700 });
  copyFileSync(source, join(target, BINDING_NAME));
  chmodSync(join(target, BINDING_NAME), 0o755);
}

/** The binding that comes with better-sqlite3: it has no sqlite_dbpage. */
function defaultBinding(): string {
  const platform = platformName().replace(/^linux-(\w+)-musl$/, 'linuxmusl-$1');
  return join(betterSqliteRoot, 'prebuilds', `${platform}.node`);
}

/** A compiler that takes no time: it "links" by copying the binding that is already built. */
function pretendCompiler(): string {
  return script(
    'pretend-cc',
    `link= out=
     while [ $# -gt 0 ]; do case "$1" in -shared) link=1;; -o) out=$2; shift;; --version) exit 0;; esac; shift; done
     if [ "$link" ]; then cp '${builtBindingPath(key)}' "$out"; else : > "$out"; fi`,
  );
}

function script(name: string, body: string): string {
  const path = join(folder, name);
  writeFileSync(path, `#!/bin/sh\n${body}\n`, { mode: 0o755 });
  return path;
}

/** A module to preload that makes this Node.js call itself another version. */
function fakeNode(node: string, napi: string): string {
  const path = join(folder, 'fake-node.cjs');
  const versions = `{ ...process.versions, node: '${node}', napi: '${napi}' }`;
  writeFileSync(path, `Object.defineProperty(process, 'versions', { value: ${versions} });\n`);
  return path;
}

function oldNodeOnPath(): { program: string; version: string } | undefined {
  for (const entry of new Set((process.env['PATH'] ?? '').split(delimiter))) {
    const program = join(entry, 'node');
    if (dirname(program) === dirname(process.execPath) || !existsSync(program)) continue;
    const version = spawnSync(program, ['--version'], { encoding: 'utf8' }).stdout?.trim().slice(1) ?? '';
    if (version !== '' && Number(version.split('.')[0]) < 22) return { program, version };
  }
  return undefined;
}
