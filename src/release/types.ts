/**
 * The types of the library in `dist/types/`, twice: in `import/` those of an ES module, in `require/` the same as those
 * of a CommonJS module, because TypeScript's node16 and node18 know no `require()` of an ES module. `npm run build` runs it.
 */
import { spawnSync } from 'node:child_process';
import { cpSync, mkdtempSync, readFileSync, realpathSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, normalize } from 'node:path';
import { packageRoot } from '../sqlite/binding-path.ts';

const ENTRIES = ['src/index.d.ts', 'src/kysely.d.ts', 'src/drizzle.d.ts'];

/** Writes them to `target`, in place of what is there. Throws if a source has an error of types. */
export function writeTypes(target: string): void {
  const all = mkdtempSync(join(tmpdir(), 'sqlsync-types-'));
  try {
    const compiler = join(packageRoot(), 'node_modules', 'typescript', 'bin', 'tsc');
    const args = [compiler, '-p', packageRoot(), '--emitDeclarationOnly', '--outDir', all];
    const { status, stdout } = spawnSync(process.execPath, args, { encoding: 'utf8' });
    if (status !== 0) throw new Error(`TypeScript refuses the sources:\n${stdout}`);
    rmSync(target, { recursive: true, force: true });
    for (const name of reachable(all, ENTRIES))
      for (const kind of ['import', 'require']) cpSync(join(all, name), join(target, kind, name));
    writeFileSync(join(target, 'require', 'package.json'), '{ "type": "commonjs" }\n');
  } finally {
    rmSync(all, { recursive: true, force: true });
  }
}

/** The entries and all files below `folder` that they import. */
function reachable(folder: string, entries: readonly string[]): Set<string> {
  const found = new Set(entries);
  // What is added meanwhile is visited, too.
  for (const name of found) {
    const text = readFileSync(join(folder, name), 'utf8');
    for (const [, path = ''] of text.matchAll(/['"](\.[^'"]+)\.ts['"]/g))
      found.add(normalize(join(dirname(name), `${path}.d.ts`)));
  }
  return found;
}

const [, program] = process.argv;
if (program !== undefined && realpathSync(program) === import.meta.filename)
  writeTypes(join(packageRoot(), 'dist', 'types'));
