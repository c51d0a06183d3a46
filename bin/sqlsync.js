#!/usr/bin/env node
// Node.js 12 must be able to parse this file, so that an old Node.js gets a message instead of a syntax error or,
// from Node.js 20, a segmentation fault in the native binding: no `node:` imports, no `?.`, no top-level await.
import { spawn } from 'child_process';
import { existsSync, mkdirSync, realpathSync } from 'fs';
import { dirname, isAbsolute, join } from 'path';
import { fileURLToPath, pathToFileURL } from 'url';

const NODE_VERSION_MIN = '22.18'; // as in src/sqlite/node-version.ts
const ROOT = dirname(dirname(fileURLToPath(import.meta.url)));
/** The Node.js that `npm ci` puts into a checkout. */
const OWN_NODE = join(ROOT, 'node_modules', 'node', 'bin', 'node');
const NODE_API_MIN = 10;
const EXIT_NODE_UNSUPPORTED = 9;
const EXIT_SYSTEM_ERROR = 26;
const EXIT_INTERNAL = 70;

if (isSupported(process.versions)) {
  process.on('uncaughtException', (error) => {
    fail(error);
    process.exit();
  });
  run().catch(fail);
} else if (existsSync(OWN_NODE) && realpathSync(OWN_NODE) !== realpathSync(process.execPath)) {
  runWithOwnNode();
} else {
  refuse();
}

function refuse() {
  complain(
    `sqlsync needs Node.js ${NODE_VERSION_MIN} or newer, but this is Node.js ${process.versions.node} (${process.execPath}).\n` +
      `Install Node.js ${NODE_VERSION_MIN} or newer, or in a checkout of sqlsync run \`npm ci\`, which brings one.`,
  );
  process.exitCode = EXIT_NODE_UNSUPPORTED;
}

/**
 * Runs the command in the Node.js of this checkout, and ends as that ends. A signal may reach one of the processes or
 * both: the child ends in the same way for any kind, but at once if the same kind comes twice, so each is passed on as
 * another. To the service SIGHUP means to read its configuration, any number of times; an agent leaves Ctrl-C to the
 * process that started it.
 */
function runWithOwnNode() {
  const isService = process.argv[2] === 'run';
  const isAgent = process.argv[2] === 'agent';
  const env = Object.assign({}, process.env);
  // systemd's watchdog names this process, and the child is the one that reports.
  delete env.WATCHDOG_PID;
  const child = spawn(OWN_NODE, process.argv.slice(1), { stdio: 'inherit', env });
  process.on('SIGINT', () => isAgent || child.kill('SIGTERM'));
  process.on('SIGTERM', () => child.kill(isService ? 'SIGINT' : 'SIGHUP'));
  process.on('SIGHUP', () => child.kill(isService ? 'SIGHUP' : 'SIGTERM'));
  child.on('error', refuse);
  child.on('exit', (status, signal) => {
    process.exitCode = status;
    if (signal === null) return;
    process.removeAllListeners(signal);
    process.kill(process.pid, signal);
  });
}

async function run() {
  await enableCompileCache();
  const cli = await import(pathToFileURL(mainModule()).href);
  process.exitCode = await cli.main(process.argv.slice(2));
}

/** What nobody else has caught. Node's own exit status for it, 1, is an answer of `verify`. */
function fail(error) {
  const isIncomplete = error && error.code === 'ERR_MODULE_NOT_FOUND';
  const isRefused = error && /^E(MFILE|NFILE|NOMEM|AGAIN|IO|ACCES|PERM)$/.test(error.code);
  process.exitCode = isIncomplete ? EXIT_NODE_UNSUPPORTED : isRefused ? EXIT_SYSTEM_ERROR : EXIT_INTERNAL;
  const text = String((error && error.message) || error).split('\n')[0];
  if (isIncomplete) {
    complain(`sqlsync is not installed completely: run \`npm ci\` in ${ROOT}, or install it again (${text})`);
  } else {
    const wantsMore = process.argv.includes('-v') || process.argv.includes('--verbose');
    const name = isRefused ? 'SYSTEM_ERROR' : 'INTERNAL';
    complain(`sqlsync: ${wantsMore && error && error.stack ? error.stack : text} [${name}]`);
  }
}

function complain(text) {
  process.stderr.on('error', () => {}); // closed: nobody is there to be told
  process.stderr.write(`${text}\n`);
}

/**
 * Halves the time to start. In the user's own cache folder: Node's default is in the temporary folder that all users
 * share, as may be the folder that a relative path leads to. Of no use is no error.
 */
async function enableCompileCache() {
  const { enableCompileCache: enable } = await import('module');
  const { homedir } = await import('os');
  try {
    const given = process.env.XDG_CACHE_HOME || '';
    const cache = isAbsolute(given) ? given : join(homedir(), '.cache');
    // With U+FFFD it may be another folder than the one that was meant.
    if (typeof enable !== 'function' || !isAbsolute(cache) || cache.includes('\ufffd')) return;
    const folder = join(cache, 'sqlsync', 'compile');
    makeFolder(folder);
    enable(folder);
  } catch {
    // Without HOME, a user whom the system does not know has no folder.
  }
}

/** Makes a folder. One at a time: below /proc, where no folder can be made, Node.js itself tries for ever. */
function makeFolder(folder) {
  if (existsSync(folder)) return;
  makeFolder(dirname(folder));
  try {
    mkdirSync(folder, { mode: 0o700 });
  } catch (error) {
    if (error.code !== 'EEXIST') throw error; // another run was faster
  }
}

function isSupported(versions) {
  const [major, minor] = versions.node.split('.').map(Number);
  const [majorMin, minorMin] = NODE_VERSION_MIN.split('.').map(Number);
  const newEnough = major > majorMin || (major === majorMin && minor >= minorMin);
  return newEnough && Number(versions.napi) >= NODE_API_MIN;
}

/** The bundle in dist/, which `npm ci` builds; without it the sources. Node.js strips no types in node_modules. */
function mainModule() {
  const bundle = join(ROOT, 'dist', 'main.js');
  const source = join(ROOT, 'src', 'cli', 'main.ts');
  return existsSync(bundle) || !existsSync(source) ? bundle : source;
}
