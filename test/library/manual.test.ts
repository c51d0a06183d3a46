import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { ERROR_CODES } from '../../src/errors.ts';
import { POOL_CHANNELS } from '../../src/pool/stats.ts';
import { tempDir } from '../support/compare.ts';

const ROOT = dirname(dirname(import.meta.dirname));
const MANUAL = readFileSync(join(ROOT, 'docs', 'library.md'), 'utf8');
const README = readFileSync(join(ROOT, 'README.md'), 'utf8');

test('the examples of the manual and the README compile', (t) => {
  const folder = tempDir(t);
  const examples = [...`${MANUAL}\n${README}`.matchAll(/^```ts\n(.*?)^```$/gms)];
  assert.ok(examples.length > 5);
  for (const [i, [, code]] of examples.entries()) {
    writeFileSync(join(folder, `example-${i}.ts`), `${code}\nexport {};\n`);
  }
  writeFileSync(join(folder, 'example-.ts'), `const n: number = 'text';\n`);
  writeFileSync(
    join(folder, 'tsconfig.json'),
    JSON.stringify({
      extends: join(ROOT, 'tsconfig.json'),
      compilerOptions: {
        noEmit: true,
        // An example may declare a name that it does not use.
        noUnusedLocals: false,
        isolatedDeclarations: false,
        rootDir: '/',
        typeRoots: [join(ROOT, 'node_modules', '@types')],
        paths: {
          'sqlsync-db': [join(ROOT, 'src', 'index.ts')],
          'sqlsync-db/*': [join(ROOT, 'src', '*.ts')],
          'drizzle-orm': [join(ROOT, 'node_modules', 'drizzle-orm', 'index.d.ts')],
          'drizzle-orm/*': [join(ROOT, 'node_modules', 'drizzle-orm', '*', 'index.d.ts')],
          kysely: [join(ROOT, 'node_modules', 'kysely', 'dist', 'index.d.ts')],
        },
      },
      include: [folder],
    }),
  );
  writeFileSync(join(folder, 'package.json'), '{"type":"module"}');
  const tsc = join(ROOT, 'node_modules', 'typescript', 'bin', 'tsc');
  const { stdout, stderr } = spawnSync(process.execPath, [tsc, '-p', folder], { encoding: 'utf8' });
  const [fault, ...faults] = stdout.split('\n').filter((line) => line.includes('example-'));
  assert.match(
    fault ?? '',
    /example-\.ts\(1,7\): error TS2322/,
    `the compiler did not look: ${stdout}${stderr}`,
  );
  assert.deepEqual(faults, []);
});

test('the manual explains every error code that the README does not give to the command alone', () => {
  const ofTheCommand = /^(ORIGIN|REPLICA|PROTOCOL|HOST|BINDING|NODE|AUTH|REMOTE|CONNECT|ROOT)/;
  const others = new Set([
    'SAME_FILE',
    'BOTH_REMOTE',
    'SWAPPED',
    'LOCKED',
    'CONFIG_INVALID',
    'BACKUP_PARTIAL',
    'DUMP_PARTIAL',
    'BUSY',
    'TIMEOUT',
    'SNAPSHOT_LIMIT',
    'RESTRICTED',
    'INTERNAL',
  ]);
  const expected = ERROR_CODES.filter((code) => !ofTheCommand.test(code) && !others.has(code));
  const explained = [...MANUAL.matchAll(/^- `([A-Z_]+)`/gm)].map(([, code]) => code);
  assert.deepEqual(new Set(explained), new Set<string>(expected));
});

test('the manual names every diagnostics channel', () => {
  const named = [...MANUAL.matchAll(/^- `(sqlsync:[a-z:]+)`/gm)].map(([, name]) => name);
  assert.deepEqual(
    named,
    Object.values(POOL_CHANNELS).map(({ name }) => name),
  );
});
