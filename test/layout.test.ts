import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import {
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, sep } from 'node:path';
import { after, before, describe, test } from 'node:test';

const ROOT = dirname(import.meta.dirname);
const LINES_MAX = 400;

/** Files that break the layout, with what the linter has to say of each. */
const VIOLATIONS: Record<string, { code: string; expected: RegExp }> = {
  'protocol/imports-node.ts': { code: `import 'node:fs';`, expected: /protocol\/ is pure/ },
  'protocol/imports-bare-node.ts': { code: `import 'fs';`, expected: /protocol\/ is pure/ },
  'protocol/imports-src.ts': { code: `import '../src/errors.ts';`, expected: /protocol\/ is pure/ },
  'protocol/uses-buffer.ts': { code: `export const a = Buffer.alloc(1);`, expected: /protocol\/ is pure/ },
  'protocol/too-long.ts': { code: 'export {};\n'.repeat(401), expected: /max-lines/ },
  'src/too-long.ts': { code: 'export {};\n'.repeat(401), expected: /max-lines/ },
  'src/long-function.ts': {
    code: `export function long(a: number): void {\n${'  a += 1;\n'.repeat(80)}}`,
    expected: /max-lines-per-function/,
  },
  'src/index.ts': { code: `import './cli/main.ts';`, expected: /imports src\/cli/ },
  'src/sync/imports-driver.ts': { code: `import 'better-sqlite3';`, expected: /Only src\/sqlite\// },
  'src/sync/imports-driver-type.ts': {
    code: `export type { Database } from 'better-sqlite3';`,
    expected: /Only src\/sqlite\//,
  },
  'src/sync/imports-ssh2.ts': { code: `import 'ssh2';`, expected: /Only src\/transport\/ssh\.ts/ },
  'src/sync/imports-yargs.ts': { code: `import 'yargs/helpers';`, expected: /Only src\/cli\// },
  'src/sync/imports-cli.ts': { code: `import '../cli/exit.ts';`, expected: /imports src\/cli/ },
  'src/pool/imports-cli.ts': { code: `import '../cli/exit.ts';`, expected: /src\/pool\/ stands alone/ },
  'src/pool/imports-sync.ts': { code: `import '../sync/sync.ts';`, expected: /src\/pool\/ stands alone/ },
  'src/pool/imports-pages.ts': { code: `import '../pages/hash.ts';`, expected: /src\/pool\/ stands alone/ },
  'src/pool/imports-protocol.ts': {
    code: `import '../../protocol/limits.ts';`,
    expected: /src\/pool\/ stands alone/,
  },
  'src/pool/imports-driver.ts': { code: `import 'better-sqlite3';`, expected: /Only src\/sqlite\// },
  'src/pool/write/imports-cli.ts': {
    code: `import '../../cli/exit.ts';`,
    expected: /src\/pool\/ stands alone/,
  },
  'src/pool/read/imports-pages.ts': {
    code: `import '../../pages/hash.ts';`,
    expected: /src\/pool\/ stands alone/,
  },
  'src/pool/sql/imports-driver.ts': { code: `import 'better-sqlite3';`, expected: /Only src\/sqlite\// },
  'src/pool/write/imports-read.ts': {
    code: `import '../read/read-pool.ts';`,
    expected: /The rooms of src\/pool/,
  },
  'src/pool/read/imports-write.ts': {
    code: `import '../write/writer.ts';`,
    expected: /The rooms of src\/pool/,
  },
  'src/pool/bulk/imports-write.ts': {
    code: `import '../write/writer.ts';`,
    expected: /The rooms of src\/pool/,
  },
  'src/pool/admission/imports-sql.ts': {
    code: `import '../sql/sql-tokens.ts';`,
    expected: /The rooms of src\/pool/,
  },
  'src/pool/sql/imports-write.ts': {
    code: `import '../write/writer.ts';`,
    expected: /The rooms of src\/pool/,
  },
  'src/pool/sql/imports-database.ts': {
    code: `import '../database.ts';`,
    expected: /The rooms of src\/pool/,
  },
  'src/cli/commands/imports-driver.ts': { code: `import 'better-sqlite3';`, expected: /Only src\/sqlite\// },
  'src/cli/imports-ssh2.ts': { code: `import 'ssh2';`, expected: /Only src\/transport\/ssh\.ts/ },
  'src/sqlite/imports-pages.ts': { code: `import '../pages/hash.ts';`, expected: /lowest layer/ },
  'src/sqlite/dump/imports-pages.ts': { code: `import '../../pages/hash.ts';`, expected: /lowest layer/ },
  'src/sqlite/dump/imports-index.ts': { code: `import '../../index.ts';`, expected: /lowest layer/ },
  'src/sqlite/imports-protocol.ts': { code: `import '../../protocol/limits.ts';`, expected: /lowest layer/ },
  'src/sqlite/imports-index.ts': { code: `import '../index.ts';`, expected: /lowest layer/ },
  'src/pages/imports-sync.ts': { code: `import '../sync/sync.ts';`, expected: /src\/pages\/ knows/ },
  'src/pages/imports-transport.ts': { code: `import '../transport/ssh.ts';`, expected: /src\/pages\/ knows/ },
  'src/pages/imports-driver.ts': { code: `import 'better-sqlite3';`, expected: /Only src\/sqlite\// },
  'src/transport/imports-pages.ts': {
    code: `import '../pages/hash.ts';`,
    expected: /src\/transport\/ moves/,
  },
  'src/transport/imports-sqlite.ts': {
    code: `import '../sqlite/busy.ts';`,
    expected: /src\/transport\/ moves/,
  },
  'src/transport/process.ts': { code: `import 'ssh2';`, expected: /Only src\/transport\/ssh\.ts/ },
  'src/transport/ssh-keys.ts': { code: `import '../sync/sync.ts';`, expected: /src\/transport\/ moves/ },
  'src/floating.ts': { code: `Promise.resolve(1);`, expected: /no-floating-promises/ },
};

/** Files that use what they may. */
const ALLOWED: Record<string, string> = {
  'protocol/encode.ts': `export * from './limits.ts';`,
  'protocol/limits.ts': `export const a = 1;`,
  'src/errors.ts': `export const a = 1;`,
  'src/sqlite/binding.ts': `export * from 'better-sqlite3'; export * from '../errors.ts'; export * from './limits.ts';`,
  'src/sqlite/busy.ts': `export const a = 1;`,
  'src/sqlite/pool-connection.ts': `export const b = 1;`,
  'src/pool/retry.ts': `export * from '../sqlite/busy.ts'; export * from '../sqlite/pool-connection.ts'; export * from '../errors.ts';`,
  'src/pool/types.ts': `export const c = 1;`,
  'src/pool/sql/sql-tokens.ts': `export * from '../types.ts'; export * from '../../errors.ts'; export * from '../../sqlite/busy.ts';`,
  'src/pool/admission/admission.ts': `export * from '../types.ts'; export * from '../../errors.ts';`,
  'src/pool/bulk/bulk.ts': `export * from '../sql/sql-tokens.ts';`,
  'src/pool/read/read-pool.ts': `export * from '../sql/sql-tokens.ts'; export * from '../types.ts';`,
  'src/pool/write/write-pool.ts': `export * from '../sql/sql-tokens.ts'; export * from '../admission/admission.ts'; export * from '../bulk/bulk.ts';`,
  'src/pool/database.ts': `export * from './read/read-pool.ts'; export * from './write/write-pool.ts';`,
  'src/pages/delta.ts': `export * from '../sqlite/binding.ts'; export * from '../../protocol/limits.ts';`,
  'src/transport/ssh.ts': `export * from 'ssh2'; export * from '../errors.ts'; export * from '../../protocol/limits.ts';`,
  'src/transport/ssh-config.ts': `export * from 'ssh2';`,
  'src/sync/sync.ts': `export * from '../pages/delta.ts'; export * from '../transport/ssh.ts'; export * from '../sqlite/binding.ts';`,
  'src/cli/commands/sync.ts': `export * from 'yargs'; export * from '../../sync/sync.ts'; export * from '../exit.ts';`,
};

describe('the linter', () => {
  let folder = '';
  let found: Map<string, string> = new Map();
  before(() => {
    folder = mkdtempSync(join(tmpdir(), 'sqlsync-layout-'));
    for (const name of ['.oxlintrc.json', 'tsconfig.json'])
      copyFileSync(join(ROOT, name), join(folder, name));
    // The type-aware rules need the types of Node.js, which tsconfig.json names.
    symlinkSync(join(ROOT, 'node_modules'), join(folder, 'node_modules'), 'dir');
    for (const [path, { code }] of Object.entries(VIOLATIONS)) place(folder, path, code);
    for (const [path, code] of Object.entries(ALLOWED)) place(folder, path, code);
    found = lint(folder);
  });
  after(() => rmSync(folder, { recursive: true, force: true }));

  for (const [path, { expected }] of Object.entries(VIOLATIONS)) {
    test(`refuses ${path}`, () => assert.match(found.get(path) ?? 'nothing found', expected));
  }
  for (const path of Object.keys(ALLOWED)) {
    test(`allows ${path}`, () => assert.equal(found.get(path), undefined));
  }
});

describe('the sources', () => {
  const files = ['src', 'protocol'].flatMap((top) =>
    readdirSync(join(ROOT, top), { recursive: true, encoding: 'utf8' })
      .filter((path) => path.endsWith('.ts'))
      .map((path) => join(top, path).split(sep).join('/')),
  );

  test(`have at most ${LINES_MAX} lines a file`, () => {
    const long = files.filter(
      (path) => readFileSync(join(ROOT, path), 'utf8').split('\n').length - 1 > LINES_MAX,
    );
    assert.deepEqual(long, []);
  });

  test('of src/pool/ have no circle of imports, those of types included', () => {
    assert.deepEqual(importCircles(files.filter((path) => path.startsWith('src/pool/'))), []);
  });

  // The linter sees import statements; this sees import(), require() and resolve() too.
  for (const [name, owner] of [
    ['better-sqlite3', /^src\/sqlite\//],
    ['ssh2', /^src\/transport\/ssh(-[\w-]+)?\.ts$/],
    ['yargs', /^src\/cli\//],
  ] as const) {
    test(`name the package ${name} only where it belongs`, () => {
      const quoted = new RegExp(`['"\`]${name}(/[^'"\`]*)?['"\`]`);
      const naming = files.filter((path) => quoted.test(readFileSync(join(ROOT, path), 'utf8')));
      assert.deepEqual(
        naming.filter((path) => !owner.test(path)),
        [],
      );
    });
  }
});

/** Files that import each other, each as the way from one back to itself. */
function importCircles(files: readonly string[]): string[] {
  const imports = new Map(
    files.map((path) => {
      const code = readFileSync(join(ROOT, path), 'utf8');
      const found = [...code.matchAll(/from '(\.[^']+)'/g)].map(([, name]) =>
        join(dirname(path), name as string),
      );
      return [path, found.map((name) => name.split(sep).join('/'))] as const;
    }),
  );
  const circles: string[] = [];
  const done = new Set<string>();
  const visit = (path: string, way: readonly string[]): void => {
    if (way.includes(path)) circles.push([...way.slice(way.indexOf(path)), path].join(' → '));
    else if (!done.has(path)) for (const next of imports.get(path) ?? []) visit(next, [...way, path]);
    done.add(path);
  };
  for (const path of files) visit(path, []);
  return circles;
}

function place(folder: string, path: string, code: string): void {
  mkdirSync(dirname(join(folder, path)), { recursive: true });
  writeFileSync(join(folder, path), `${code}\n`);
}

/** What the linter says about each file of `folder`, by path; a clean file has no entry. */
function lint(folder: string): Map<string, string> {
  const oxlint = join(ROOT, 'node_modules', 'oxlint', 'bin', 'oxlint');
  const options = ['--format=json', '--tsconfig=tsconfig.json'];
  const { stdout, stderr } = spawnSync(process.execPath, [oxlint, ...options], {
    cwd: folder,

    encoding: 'utf8',
  });
  assert.ok(stdout.startsWith('{'), `oxlint gave no result: ${stdout}${stderr}`);
  const { diagnostics } = JSON.parse(stdout) as {
    diagnostics: { filename: string; code: string; message: string; help?: string }[];
  };
  const found = new Map<string, string>();
  for (const { filename, code, message, help } of diagnostics) {
    found.set(filename, `${found.get(filename) ?? ''}${code}: ${message} ${help ?? ''}\n`);
  }
  return found;
}
