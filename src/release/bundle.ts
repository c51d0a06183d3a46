/**
 * Bundles the program and the library into `dist/`: a few files load in half the time of some 300, and Node.js does not
 * strip types below node_modules. `npm run build` and `npm test` run it.
 */
import {
  mkdirSync,
  readdirSync,
  readFileSync,
  realpathSync,
  renameSync,
  rmSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { basename, join } from 'node:path';
import { bindingKeys } from './platforms.ts';

const ROOT = join(import.meta.dirname, '..', '..');
const FOLDER = join(ROOT, 'dist');

/**
 * The modules that are started or imported by name: the program, the library, and the modules of threads and processes.
 */
export const ENTRIES: Readonly<Record<string, string>> = {
  main: 'src/cli/main.ts',
  index: 'src/index.ts',
  kysely: 'src/kysely.ts',
  drizzle: 'src/drizzle.ts',
  'writer-thread': 'src/sqlite/writer/writer-thread.ts',
  'integrity-process': 'src/sqlite/integrity/integrity-process.ts',
  'read-worker': 'src/pool/read/read-worker.ts',
  'coordinator-thread': 'src/pool/admission/coordinator-thread.ts',
  'decompressor-thread': 'src/backup/objects/decompressor-thread.ts',
  'read-thread': 'src/backup/backends/s3/read-thread.ts',
  'sftp-read-thread': 'src/backup/backends/sftp/sftp-read-thread.ts',
  'agent-read-thread': 'src/backup/backends/agent/agent-read-thread.ts',
};

/** Entries of the library. They have a second name in `dist/src/`, where they were before there was a bundle. */
const LIBRARY = ['index', 'kysely', 'drizzle'];

/** Packages that stay packages: they have native code, have types that an application shares, or are seldom loaded. */
const EXTERNAL = [
  'better-sqlite3',
  'cpu-features',
  'croner',
  'drizzle-orm',
  'esbuild',
  'kysely',
  'node-addon-api',
  'node-api-headers',
  'ssh2',
  'temporal-polyfill',
  'xxhash-wasm',
  'yaml',
];

/** The licenses of the packages whose parts are in the bundle. */
const LICENSES = 'licenses.txt';

/** The time of this file says how old the bundled sources are; the tests compare it. */
const DATED_FILE = 'main.js';

/**
 * Writes the bundle. A program that starts meanwhile finds the old one or the new one: the files that others name are
 * replaced last.
 */
export async function bundle(): Promise<void> {
  const startedAt = new Date();
  const { build } = await import('esbuild');
  const { outputFiles, metafile } = await build({
    metafile: true,
    absWorkingDir: ROOT,
    entryPoints: { ...ENTRIES },
    outdir: FOLDER,
    bundle: true,
    // Flat, so that a thread's module lies beside each file that may start it.
    splitting: true,
    entryNames: '[name]',
    chunkNames: 'chunk-[hash]',
    // Among the packages only yargs is bundled: every command loads its parser.
    external: EXTERNAL,
    define: { SQLSYNC_BINDING_KEYS: JSON.stringify(bindingKeys()) },
    alias: { 'yargs/helpers': './src/release/yargs-helpers.ts' },
    format: 'esm',
    platform: 'node',
    target: 'node22.18',
    write: false,
    logLevel: 'warning',
  });
  mkdirSync(join(FOLDER, 'src'), { recursive: true });
  const isEntry = ({ path }: { path: string }): boolean => basename(path, '.js') in ENTRIES;
  const files: { path: string; contents: Uint8Array }[] = [
    ...outputFiles.filter((file) => !isEntry(file)),
    ...outputFiles.filter(isEntry),
  ];
  files.unshift({
    path: join(FOLDER, LICENSES),
    contents: Buffer.from(licensesOf(Object.keys(metafile.inputs))),
  });
  for (const name of LIBRARY) {
    files.push({
      path: join(FOLDER, 'src', `${name}.js`),
      contents: Buffer.from(`export * from '../${name}.js';\n`),
    });
  }
  for (const { path, contents } of files) replaceFile(path, contents);
  utimesSync(join(FOLDER, DATED_FILE), startedAt, startedAt);
  const names = new Set(files.map(({ path }) => basename(path)));
  const stale = readdirSync(FOLDER).filter(
    (name) => !['types', 'src', 'man'].includes(name) && !names.has(name),
  );
  for (const name of stale) rmSync(join(FOLDER, name), { recursive: true, force: true });
}

/** The licenses of the packages whose parts are in the bundle, which they require to be included. */
function licensesOf(inputs: readonly string[]): string {
  const packages = inputs.flatMap((path) => /^node_modules\/((?:@[^/]+\/)?[^/]+)\//.exec(path)?.[1] ?? []);
  const texts = [...new Set(packages)].toSorted().map((name) => {
    const folder = join(ROOT, 'node_modules', name);
    const file = readdirSync(folder).find((each) => /^licen[cs]e/i.test(each));
    if (file === undefined) throw new Error(`The package ${name} has no license to bundle`);
    return `${name}\n\n${readFileSync(join(folder, file), 'utf8').trim()}\n`;
  });
  return texts.join(`\n${'-'.repeat(80)}\n\n`);
}

function replaceFile(path: string, contents: Uint8Array): void {
  const temporary = `${path}.${process.pid}`;
  writeFileSync(temporary, contents);
  renameSync(temporary, path);
}

const [, program] = process.argv;
// Not `import.meta.main`, which the oldest supported Node.js may lack.
if (program !== undefined && realpathSync(program) === import.meta.filename) await bundle();
