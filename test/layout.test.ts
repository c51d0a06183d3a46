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
import { dirname, join, relative, sep } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { findViolations, LAYERS } from './layers.ts';

const ROOT = dirname(import.meta.dirname);
const LINES_MAX = 400;

/** Files that break the layout, with the linter's messages about each. */
const VIOLATIONS: Record<string, { code: string; expected: RegExp }> = {
  'protocol/imports-node.ts': { code: `import 'node:fs';`, expected: /protocol\/ is pure/ },
  'protocol/imports-bare-node.ts': { code: `import 'fs';`, expected: /protocol\/ is pure/ },
  'protocol/uses-buffer.ts': { code: `export const a = Buffer.alloc(1);`, expected: /protocol\/ is pure/ },
  'protocol/too-long.ts': { code: 'export {};\n'.repeat(401), expected: /max-lines/ },
  'src/too-long.ts': { code: 'export {};\n'.repeat(401), expected: /max-lines/ },
  'src/long-function.ts': {
    code: `export function long(a: number): void {\n${'  a += 1;\n'.repeat(80)}}`,
    expected: /max-lines-per-function/,
  },
  'src/sync/runs/imports-driver.ts': { code: `import 'better-sqlite3';`, expected: /Only src\/sqlite\// },
  'src/sync/link/imports-driver-type.ts': {
    code: `export type { Database } from 'better-sqlite3';`,
    expected: /Only src\/sqlite\//,
  },
  'src/sync/link/imports-ssh2.ts': { code: `import 'ssh2';`, expected: /Only src\/transport\/ssh\// },
  'src/transport/process.ts': { code: `import 'ssh2';`, expected: /Only src\/transport\/ssh\// },
  'src/sync/runs/imports-yargs.ts': { code: `import 'yargs/helpers';`, expected: /Only src\/cli\// },
  'src/pool/read/imports-driver.ts': { code: `import 'better-sqlite3';`, expected: /Only src\/sqlite\// },
  'src/cli/commands/imports-driver.ts': { code: `import 'better-sqlite3';`, expected: /Only src\/sqlite\// },
  'src/cli/imports-ssh2.ts': { code: `import 'ssh2';`, expected: /Only src\/transport\/ssh\// },
  'src/cli/imports-esbuild.ts': { code: `import 'esbuild';`, expected: /Only src\/release\// },
  'src/circle-a.ts': {
    code: `import type { B } from './circle-b.ts'; export type A = B | 1;`,
    expected: /no-cycle/,
  },
  'src/circle-b.ts': {
    code: `import type { A } from './circle-a.ts'; export type B = A | 2;`,
    expected: /no-cycle/,
  },
  'src/floating.ts': { code: `Promise.resolve(1);`, expected: /no-floating-promises/ },
};

/** Files that use only what they may. */
const ALLOWED: Record<string, string> = {
  'protocol/encode.ts': `export * from './limits.ts';`,
  'protocol/limits.ts': `export const a = 1;`,
  'src/sqlite/binding.ts': `export * from 'better-sqlite3';`,
  'src/sqlite/dump/rows.ts': `export * from 'better-sqlite3';`,
  'src/transport/ssh/ssh-config.ts': `export * from 'ssh2';`,
  'src/cli/commands/sync.ts': `export * from 'yargs';`,
  'src/release/bundle.ts': `export * from 'esbuild';`,
};

/** Imports from one folder to another that test/layers.ts does not allow, in each possible form. */
const WRONG_WAYS: readonly (readonly [file: string, code: string, folder: string])[] = [
  ['protocol/a.ts', `import '../src/errors-of-mine.ts';`, 'src'],
  ['src/files/a.ts', `import { b } from '../sqlite/busy.ts';`, 'src/sqlite'],
  ['src/sqlite/a.ts', `import '../pages/hash.ts';`, 'src/pages'],
  ['src/sqlite/a.ts', `import '../../protocol/limits.ts';`, 'protocol'],
  ['src/sqlite/a.ts', `export * from '../index.ts';`, 'src'],
  ['src/sqlite/dump/a.ts', `import type { B } from '../../pages/hash.ts';`, 'src/pages'],
  ['src/pages/a.ts', `await import('../sync/runs/sync.ts');`, 'src/sync/runs'],
  ['src/pages/a.ts', `import '../transport/rsh.ts';`, 'src/transport'],
  ['src/origin/a.ts', `import '../replica/open-replica.ts';`, 'src/replica'],
  ['src/replica/new/a.ts', `import { open } from '../open-replica.ts';`, 'src/replica'],
  ['src/transport/a.ts', `import '../pages/hash.ts';`, 'src/pages'],
  ['src/transport/a.ts', `import './ssh/ssh.ts';`, 'src/transport/ssh'],
  ['src/sync/link/a.ts', `import '../agents/origin-agent.ts';`, 'src/sync/agents'],
  ['src/sync/agents/a.ts', `export type { C } from '../runs/sync.ts';`, 'src/sync/runs'],
  ['src/sync/runs/a.ts', `import '../../cli/exit.ts';`, 'src/cli'],
  ['src/backup/packs/a.ts', `import '../objects/object-reader.ts';`, 'src/backup/objects'],
  ['src/backup/objects/a.ts', `import '../files/store-files.ts';`, 'src/backup/files'],
  ['src/backup/check/a.ts', `import '../store.ts';`, 'src/backup'],
  ['src/pool/a.ts', `import '../sync/runs/sync.ts';`, 'src/sync/runs'],
  ['src/pool/sql/a.ts', `import '../database.ts';`, 'src/pool'],
  ['src/pool/read/a.ts', `import '../write/writer.ts';`, 'src/pool/write'],
  ['src/library/a.ts', `import '../cli/exit.ts';`, 'src/cli'],
  ['src/index.ts', `import './cli/main.ts';`, 'src/cli'],
];

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
    test(`the linter refuses ${path}`, () => assert.match(found.get(path) ?? 'nothing found', expected));
  }
  for (const path of Object.keys(ALLOWED)) {
    test(`the linter allows ${path}`, () => assert.equal(found.get(path), undefined));
  }
});

describe('imports from folder to folder', () => {
  let folder = '';
  before(() => (folder = mkdtempSync(join(tmpdir(), 'sqlsync-layers-'))));
  after(() => rmSync(folder, { recursive: true, force: true }));

  for (const [file, code, other] of WRONG_WAYS) {
    test(`imports of ${dirname(file)}/ may not go to ${other}/: ${code}`, () => {
      place(folder, file, code);
      const found = findViolations(folder);
      rmSync(join(folder, file));
      const line = `${dirname(file)}/ may not import ${other}/`;
      assert.ok(
        found.some((one) => one.startsWith(file) && one.includes(line)),
        found.join(),
      );
      assert.equal(found.length, 1);
    });
  }

  test('imports of a folder that the table does not list may go nowhere', () => {
    place(folder, 'src/news/a.ts', `import '../sqlite/busy.ts';`);
    assert.match(findViolations(folder).join(), /src\/news\/ may not import src\/sqlite\//);
    rmSync(join(folder, 'src', 'news'), { recursive: true });
  });

  test('imports of the sources go as the table says', () => assert.deepEqual(findViolations(ROOT), []));

  test('the table lists an import only if some module has it', () => {
    const code = sourceFiles().map(
      (path) => [dirname(path), readFileSync(join(ROOT, path), 'utf8')] as const,
    );
    for (const [from, others] of Object.entries(LAYERS)) {
      for (const other of others) {
        const way = relative(from, other).split(sep).join('/');
        const specifier = `'${way.startsWith('.') ? way : `./${way}`}/`;
        const isUsed = code.some(([at, text]) => at === from && text.includes(specifier));
        assert.ok(isUsed, `no module of ${from}/ imports ${other}/`);
      }
    }
  });
});

function sourceFiles(): string[] {
  return ['src', 'protocol'].flatMap((top) =>
    readdirSync(join(ROOT, top), { recursive: true, encoding: 'utf8' })
      .filter((path) => path.endsWith('.ts'))
      .map((path) => join(top, path).split(sep).join('/')),
  );
}

describe('the sources', () => {
  const files = sourceFiles();

  test(`the sources have at most ${LINES_MAX} lines a file`, () => {
    const long = files.filter(
      (path) => readFileSync(join(ROOT, path), 'utf8').split('\n').length - 1 > LINES_MAX,
    );
    assert.deepEqual(long, []);
  });

  // The linter sees import statements; this sees import(), require() and resolve() too.
  for (const [name, owner] of [
    ['better-sqlite3', /^src\/(sqlite|release)\//],
    ['ssh2', /^src\/(transport\/ssh|release)\//],
    ['yargs', /^src\/(cli|release)\//],
  ] as const) {
    test(`the sources name the package ${name} only where it belongs`, () => {
      const quoted = new RegExp(`['"\`]${name}(/[^'"\`]*)?['"\`]`);
      const naming = files.filter((path) => quoted.test(readFileSync(join(ROOT, path), 'utf8')));
      assert.deepEqual(
        naming.filter((path) => !owner.test(path)),
        [],
      );
    });
  }
});

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
