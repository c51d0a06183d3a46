import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, realpathSync, symlinkSync, writeFileSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { test } from 'node:test';
import { pathToFileURL } from 'node:url';
import { tempDir } from './compare.ts';

const MODULE = pathToFileURL(join(import.meta.dirname, 'environment.ts')).href;

interface Surroundings {
  readonly env: Record<string, string>;
  readonly umask: number;
  readonly found: string;
  readonly configuration: string;
  /** The first lines of the program of that name. */
  readonly sqlite3: string;
}

/** The surroundings of a test that is started with `env` besides. */
function surroundings(env: NodeJS.ProcessEnv): Surroundings {
  const program = `
    import { execSync } from 'node:child_process';
    const run = (command) => execSync(command + ' || true', { encoding: 'utf8' }).trim();
    const found = run('command -v sqlsync');
    const configuration = run('ssh -G db1 2>/dev/null');
    const sqlite3 = run('head -c 1000 "$(command -v sqlite3)"');
    process.stdout.write(
      JSON.stringify({ env: process.env, umask: process.umask(), found, configuration, sqlite3 }));`;
  const { SQLSYNC_TEST_SURROUNDINGS: _, ...mine } = process.env;
  const { stdout, stderr } = spawnSync(
    process.execPath,
    ['--import', MODULE, '--input-type=module', '-e', program],
    { encoding: 'utf8', env: { ...mine, ...env } },
  );
  assert.notEqual(stdout, '', stderr);
  return JSON.parse(stdout) as Surroundings;
}

test('no variable of the user reaches a program that a test starts, except for those that find programs and choose tests', (t) => {
  const home = tempDir(t);
  const { env } = surroundings({
    HOME: home,
    LANG: 'de_DE.UTF-8',
    LC_ALL: 'de_DE.UTF-8',
    LANGUAGE: 'de',
    TZ: 'America/Santiago',
    NODE_OPTIONS: '--no-warnings',
    SSH_AUTH_SOCK: '/tmp/agent',
    SQLSYNC_RSH: 'false',
    SQLSYNC_STAGING_MIN_BYTES: '0',
    SQLSYNC_WRITER_THREAD_MIN_BYTES: '0',
    SQLSYNC_SLOW_TESTS: '0',
    XDG_CACHE_HOME: '/nowhere',
    NO_COLOR: '1',
    BASH_ENV: '/nowhere',
    HTTP_PROXY: 'http://127.0.0.1:1',
    USER: 'somebody-else',
  });
  const names = 'LANG LANGUAGE NODE_OPTIONS SSH_AUTH_SOCK SQLSYNC_RSH SQLSYNC_STAGING_MIN_BYTES';
  const more = 'SQLSYNC_WRITER_THREAD_MIN_BYTES XDG_CACHE_HOME NO_COLOR BASH_ENV HTTP_PROXY';
  for (const name of `${names} ${more}`.split(' ')) assert.equal(env[name], undefined, name);
  assert.equal(env['LC_ALL'], 'C.UTF-8');
  assert.equal(env['TZ'], 'UTC');
  assert.equal(env['SQLSYNC_SLOW_TESTS'], '0');
  assert.notEqual(env['USER'], 'somebody-else');
  assert.notEqual(env['HOME'], home);
  assert.ok(!existsSync(env['HOME'] ?? ''), 'its home is gone with it');
});

test('a sqlsync of the user is not found, and all programs beside it are', (t) => {
  const folder = join(tempDir(t), 'a folder');
  mkdirSync(folder);
  for (const name of ['sqlsync', 'beside-it']) {
    writeFileSync(join(folder, name), '#!/bin/sh\n', { mode: 0o755 });
  }
  const { found, env } = surroundings({ PATH: `${folder}${delimiter}${process.env['PATH'] ?? ''}` });
  assert.equal(found, '');
  assert.ok(!(env['PATH'] ?? '').split(delimiter).includes(folder));
  const beside = spawnSync(
    process.execPath,
    [
      '--import',
      MODULE,
      '-e',
      `process.stdout.write(require('node:child_process').execSync('beside-it && echo ran'))`,
    ],
    { encoding: 'utf8', env: { PATH: `${folder}${delimiter}${process.env['PATH'] ?? ''}` } },
  );
  assert.equal(beside.stdout, 'ran\n', beside.stderr);
});

test('a temporary folder that is a link, or has a space in its name, is replaced by one that has not', (t) => {
  const folder = tempDir(t);
  const real = join(folder, 'real');
  mkdirSync(real);
  symlinkSync(real, join(folder, 'link'));
  const behindLink = surroundings({ TMPDIR: join(folder, 'link') }).env['TMPDIR'] ?? '';
  assert.equal(behindLink, realpathSync(behindLink));
  mkdirSync(join(folder, 'with spaces'));
  assert.doesNotMatch(surroundings({ TMPDIR: join(folder, 'with spaces') }).env['TMPDIR'] ?? '', / /);
});

test('sqlite3 reads no settings of the user', { skip: !hasSqlite3() }, () => {
  assert.match(surroundings({}).sqlite3, /exec '.*sqlite3' -init \/dev\/null "\$@"/);
});

/** `UpdateHostKeys no` belongs to files of known hosts that are not the default ones. */
const FOLLOWS = /^updatehostkeys /;
const NAMES_FILES = /^(identityfile|(user|global)knownhostsfile) /;

test(
  'files are made with an ordinary umask, and ssh reads no configuration, key or known host of the user',
  { skip: !hasSsh() },
  () => {
    const before = process.umask(0o077);
    try {
      const { umask, configuration, env } = surroundings({});
      assert.equal(umask, 0o022);
      const plain = spawnSync('ssh', ['-F', 'none', '-G', 'db1'], { encoding: 'utf8' }).stdout;
      const lines = configuration.split('\n');
      const own = lines.filter((line) => NAMES_FILES.test(line));
      assert.deepEqual(own.toSorted(), [
        'globalknownhostsfile none',
        'identityfile none',
        `userknownhostsfile ${join(env['HOME'] ?? '', '.ssh', 'known_hosts')}`,
      ]);
      const rest = (all: readonly string[]): string[] =>
        all.filter((line) => !NAMES_FILES.test(line) && !FOLLOWS.test(line));
      assert.deepEqual(rest(lines), rest(plain.trim().split('\n')));
    } finally {
      process.umask(before);
    }
  },
);

function hasSqlite3(): boolean {
  return spawnSync('sqlite3', ['--version']).status === 0;
}

function hasSsh(): boolean {
  return spawnSync('ssh', ['-V']).status === 0;
}
