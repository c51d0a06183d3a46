import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { describe, test } from 'node:test';
import { openDatabase } from '../../src/pool/database.ts';
import { tempDir } from '../support/compare.ts';

describe("a database named ':memory:'", () => {
  test("a database named ':memory:' is new each time, has readers and threads, and is gone once it is closed", async () => {
    const [one, two] = await Promise.all([
      openDatabase(':memory:', { threads: 1, create: false }),
      openDatabase(':memory:'),
    ]);
    await one.write.exec('CREATE TABLE t (x); INSERT INTO t VALUES (1)');
    assert.deepEqual(await one.read.all('SELECT x FROM t'), [{ x: 1 }]);
    await one.write.transaction(async (tx) => {
      await tx.run('INSERT INTO t VALUES (2)');
      assert.deepEqual(await one.read.all('SELECT x FROM t', [], { thread: false }), [{ x: 1 }]);
    });
    await assert.rejects(two.read.all('SELECT x FROM t'), /no such table/);
    assert.notEqual(one.path, two.path);
    await one.close();
    assert.deepEqual([existsSync(dirname(one.path)), existsSync(two.path)], [false, true]);
    await two.close();
    assert.equal(existsSync(dirname(two.path)), false);
  });

  test("a database named ':memory:' is gone if the process ends without closing it", (t) => {
    const folder = tempDir(t);
    const module = new URL('../../src/pool/database.ts', import.meta.url).href;
    const program = `import { readdirSync } from 'node:fs';
      import { openDatabase } from ${JSON.stringify(module)};
      const databases = await Promise.all(Array.from({ length: 12 }, () => openDatabase(':memory:')));
      await databases[0].write.exec('CREATE TABLE t (x)');
      console.log(readdirSync(${JSON.stringify(folder)}).length);
      process.exit();`;
    const { stdout, stderr } = spawnSync(process.execPath, ['--input-type=module', '-e', program], {
      encoding: 'utf8',
      env: { ...process.env, TMPDIR: folder },
    });
    assert.deepEqual([stdout, stderr], ['12\n', '']);
    assert.deepEqual(readdirSync(folder), []);
  });

  test("a database named ':memory:' that a killed process left is removed by the next one, and that of a living one is not", (t) => {
    const folder = tempDir(t);
    const module = new URL('../../src/pool/database.ts', import.meta.url).href;
    const run = (then: string): number | null => {
      const program = `import { mkdirSync, readdirSync } from 'node:fs';
        import { openDatabase } from ${JSON.stringify(module)};
        await openDatabase(':memory:');
        const folder = ${JSON.stringify(folder)};
        ${then}`;
      return spawnSync(process.execPath, ['--input-type=module', '-e', program], {
        env: { ...process.env, TMPDIR: folder },
      }).status;
    };
    // One of its own by another name, as of a process that lives, and one of another machine.
    const others = `const [name] = readdirSync(folder);
      mkdirSync(folder + '/' + name.replace(/-[0-9]+-[^-]*$/, '-${process.pid}-living'));
      mkdirSync(folder + '/sqlsync-memory-000000000000-999999999-other');`;
    assert.equal(run(`${others} process.kill(process.pid, 'SIGKILL');`), null);
    assert.equal(readdirSync(folder).length, 3);
    assert.equal(run('process.exit();'), 0);
    const left = readdirSync(folder).map((name) => name.split('-').at(-1) ?? '');
    assert.deepEqual(left.toSorted(), ['living', 'other']);
  });

  test("a database named ':memory:' leaves nothing if its options are wrong, and says where no folder can be made", async (t) => {
    const folder = tempDir(t);
    const before = process.env['TMPDIR'];
    process.env['TMPDIR'] = folder;
    try {
      await assert.rejects(openDatabase(':memory:', { readers: 0 }), { code: 'USAGE' });
      assert.deepEqual(readdirSync(folder), []);
      process.env['TMPDIR'] = join(folder, 'missing');
      await assert.rejects(openDatabase(':memory:'), { code: 'DATABASE_UNUSABLE', hint: /TMPDIR/ });
    } finally {
      if (before === undefined) delete process.env['TMPDIR'];
      else process.env['TMPDIR'] = before;
    }
  });
});
