/**
 * Gives the tests, and all programs that they start, the same surroundings: no variable of the user, no file
 * of their home, no `sqlsync` of theirs on the PATH, no configuration of their ssh and sqlite3. `npm test`
 * loads this before any test file. Test files also load it with the modules of this folder, so that a single
 * one has the same.
 */
import { execFileSync } from 'node:child_process';
import { accessSync, chmodSync, constants, mkdirSync, mkdtempSync, readdirSync, realpathSync } from 'node:fs';
import { existsSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir, userInfo } from 'node:os';
import { delimiter, join } from 'node:path';

/** The user's variables that stay: those that find and start programs, and those that choose among the tests. */
const KEPT =
  /^(PATH|SHELL|USER|LOGNAME|LD_LIBRARY_PATH|DYLD_\w+|NIX_\w+|CC|CXX|npm_\w+|NODE_COMPILE_CACHE|NODE_TEST_\w+|NODE_V8_COVERAGE|NODE_CHANNEL_\w+|SQLSYNC_(SLOW_TESTS|RUNS|SNAPSHOTS|\w*SEED|TEST_\w+|BINDING_DIR|NO_BINDING_CACHE))$/;

/** The process that cleaned up sets this for those that it starts: their variables were set by a test. */
const CLEAN = 'SQLSYNC_TEST_SURROUNDINGS';

/** A socket's path has room for about 100 characters, and configuration files of sshd and shells none for spaces. */
const MAX_TEMPORARY_LENGTH = 50;

/**
 * Programs that find their user's files by the password database and not by HOME, with the options that make
 * them read none.
 */
const WITHOUT_FILES = {
  ssh: (folder: string) => `-F '${sshConfig(folder)}'`,
  sqlite3: () => '-init /dev/null',
};

if (process.env[CLEAN] === undefined) {
  bundleIfOld();
  cleanUp();
}

/** Commands run the bundle in dist/. A single test file that runs after a change makes a new bundle first. */
function bundleIfOld(): void {
  const root = join(import.meta.dirname, '..', '..');
  const bundle = statSync(join(root, 'dist', 'main.js'), { throwIfNoEntry: false });
  const isOld = ['src', 'protocol'].some((name) => hasNewerFile(join(root, name), bundle?.mtimeMs ?? 0));
  if (isOld)
    execFileSync(process.execPath, [join(root, 'src', 'release', 'bundle.ts')], { stdio: 'inherit' });
}

/** A deleted file leaves its folder newer. */
function hasNewerFile(folder: string, ms: number): boolean {
  if (statSync(folder).mtimeMs > ms) return true;
  return readdirSync(folder, { withFileTypes: true }).some((entry) => {
    const path = join(folder, entry.name);
    return entry.isDirectory() ? hasNewerFile(path, ms) : statSync(path).mtimeMs > ms;
  });
}

function cleanUp(): void {
  const temporary = plainTemporaryFolder();
  const folder = mkdtempSync(join(temporary, 'sqlsync-tests-'));
  process.once('exit', () => rmSync(folder, { recursive: true, force: true }));
  // Some tests start programs as another user.
  chmodSync(folder, 0o755);
  process.umask(0o022);
  for (const name of ['home', 'bin']) mkdirSync(join(folder, name));
  const path = withoutSqlsync(process.env['PATH'] ?? '', folder);
  isolatePrograms(folder, path);
  for (const name of Object.keys(process.env)) if (!KEPT.test(name)) delete process.env[name];
  Object.assign(process.env, {
    [CLEAN]: folder,
    PATH: `${join(folder, 'bin')}${delimiter}${path}`,
    HOME: join(folder, 'home'),
    TMPDIR: temporary,
    LC_ALL: 'C.UTF-8',
    TZ: 'UTC',
    ...userNames(),
  });
}

function plainTemporaryFolder(): string {
  const given = realpathSync(tmpdir());
  if (/^[\w./+-]+$/.test(given) && given.length <= MAX_TEMPORARY_LENGTH) return given;
  const common = realpathSync('/tmp');
  accessSync(common, constants.W_OK);
  return common;
}

/** A folder of a PATH that has a `sqlsync` is replaced by one in `folder` that has links to all the rest. */
export function withoutSqlsync(path: string, folder: string): string {
  const folders = path.split(delimiter).map((entry) => {
    if (!existsSync(join(entry, 'sqlsync'))) return entry;
    const mirror = mkdtempSync(join(folder, 'path-'));
    chmodSync(mirror, 0o755);
    const names = readdirSync(entry).filter((name) => name !== 'sqlsync');
    for (const name of names) symlinkSync(join(realpathSync(entry), name), join(mirror, name));
    return mirror;
  });
  return folders.join(delimiter);
}

/** The same options from a test come later, and so win. */
function isolatePrograms(folder: string, path: string): void {
  for (const [name, options] of Object.entries(WITHOUT_FILES)) {
    const programs = path.split(delimiter).map((entry) => join(entry, name));
    const program = programs.find((candidate) => existsSync(candidate));
    if (program === undefined) continue;
    const script = `#!/bin/sh\nexec '${program}' ${options(folder)} "$@"\n`;
    writeFileSync(join(folder, 'bin', name), script, { mode: 0o755 });
  }
}

/** A configuration that names no key and no known host of the user: without any, ssh takes those in their home. */
function sshConfig(folder: string): string {
  const path = join(folder, 'ssh_config');
  const knownHosts = join(folder, 'home', '.ssh', 'known_hosts');
  writeFileSync(path, `IdentityFile none\nUserKnownHostsFile ${knownHosts}\nGlobalKnownHostsFile none\n`);
  return path;
}

/** As the system has them: a shell of `su` or `sudo` may still name another user. */
function userNames(): Record<string, string> {
  try {
    const { username } = userInfo();
    return { USER: username, LOGNAME: username };
  } catch {
    return {}; // A container may run under a number that has no name.
  }
}
