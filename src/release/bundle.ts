/**
 * Bundles the program and the library into `dist/`: a few files load in half the time of some 300, and Node.js strips
 * no types below node_modules. `npm run build` and `npm test` run it.
 */
import { mkdirSync, readdirSync, realpathSync, renameSync, rmSync, utimesSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';

const ROOT = join(import.meta.dirname, '..', '..');
const FOLDER = join(ROOT, 'dist');

/** What is started or imported by its name: the program, the library, and the modules of threads and processes. */
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
};

/** Its time says how old the sources are that the bundle was made of; bin/sqlsync.js compares. */
const DATED_FILE = 'main.js';

/**
 * Writes the bundle. A program that starts meanwhile finds the old one or the new one: the files that others name are
 * replaced last.
 */
export async function bundle(): Promise<void> {
  const startedAt = new Date();
  const { build } = await import('esbuild');
  const { outputFiles } = await build({
    absWorkingDir: ROOT,
    entryPoints: { ...ENTRIES },
    outdir: FOLDER,
    bundle: true,
    // Flat, so that a thread's module lies beside each file that may start it.
    splitting: true,
    entryNames: '[name]',
    chunkNames: 'chunk-[hash]',
    packages: 'external',
    format: 'esm',
    platform: 'node',
    target: 'node22.18',
    write: false,
    logLevel: 'warning',
  });
  mkdirSync(FOLDER, { recursive: true });
  const isEntry = ({ path }: { path: string }): boolean => basename(path, '.js') in ENTRIES;
  const files = [...outputFiles.filter((file) => !isEntry(file)), ...outputFiles.filter(isEntry)];
  for (const { path, contents } of files) replaceFile(path, contents);
  utimesSync(join(FOLDER, DATED_FILE), startedAt, startedAt);
  const names = new Set(files.map(({ path }) => basename(path)));
  const stale = readdirSync(FOLDER).filter((name) => name !== 'types' && !names.has(name));
  for (const name of stale) rmSync(join(FOLDER, name), { recursive: true, force: true });
}

function replaceFile(path: string, contents: Uint8Array): void {
  const temporary = `${path}.${process.pid}`;
  writeFileSync(temporary, contents);
  renameSync(temporary, path);
}

const [, program] = process.argv;
// Not `import.meta.main`, which the oldest supported Node.js may lack.
if (program !== undefined && realpathSync(program) === import.meta.filename) await bundle();
