import assert from 'node:assert/strict';
import { once } from 'node:events';
import { chmodSync, existsSync, mkdirSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import Database from 'better-sqlite3';
import { readFacts } from '../../src/doctor/facts-shape.ts';
import type { Facts } from '../../src/doctor/facts.ts';
import type { Finding } from '../../src/doctor/finding.ts';
import { collectFacts } from '../../src/doctor/collect/collect.ts';
import { judge } from '../../src/doctor/judge/judge.ts';
import { watchGrowth } from '../../src/doctor/collect/full.ts';
import { Command, folderState, jsonLines, NEEDS_ROOT, NOBODY, sqlsync } from '../cli/command.ts';
import type { CommandOptions } from '../cli/command.ts';
import { assertDocumented } from '../cli/store-here.ts';
import { change, damage, openFolder, smallDatabase } from '../pages/databases.ts';
import { tempDir } from '../support/compare.ts';
import { OtherProcess } from '../support/other-process.ts';
import { findingOf, ids, LINUX, ofDatabase } from './holders.ts';

interface Summary {
  readonly facts: Facts;
  readonly findings: readonly Finding[];
}

async function doctor(
  args: readonly string[],
  options: CommandOptions = {},
): Promise<Summary & { status: number | null }> {
  const { status, stdout, stderr } = await sqlsync(['doctor', '--json', ...args], options);
  const summary = jsonLines(stdout).at(-1);
  assert.equal(summary?.type, 'summary', stdout + stderr);
  assertDocumented('doctor', summary);
  return { status, ...(summary as unknown as Summary) };
}

describe('sqlsync doctor', { skip: LINUX }, () => {
  test('sqlsync doctor exits 0 where nothing is wrong and 1 with findings, worst first, each with a line that mends it', async (t) => {
    const path = join(tempDir(t), 'a.db');
    smallDatabase(path);
    const fine = await sqlsync(['doctor', path]);
    // In a container the folder of the tests may be a finding of its own.
    const isFine = judge(await collectFacts(path)).length === 0;
    assert.equal(fine.status, isFine ? 0 : 1, fine.stdout + fine.stderr);
    if (isFine) assert.match(fine.stdout, /: nothing is wrong\n/);
    else t.diagnostic('NOT TESTED: the folder of the tests is on overlay or a network');
    assert.deepEqual(ofDatabase(judge(await collectFacts(path))), []);
    const other = new OtherProcess(t);
    const writer = await other.open(path);
    await writer.exec('BEGIN IMMEDIATE');
    damage(path, 21, Buffer.from([1]));
    const { status, stdout } = await sqlsync(['doctor', path]);
    assert.equal(status, 1);
    assert.match(
      stdout,
      /findings\n\nDANGER {3}The database is damaged: .*\[damaged\]\n.*\n +→ .*\n\nADVICE {3}PID /,
    );
    if (isFine) assert.match(stdout, /: 2 findings\n/);
    const row = stdout.split('\n').find((line) => line.trimStart().startsWith(`${other.pid} `));
    assert.match(row ?? '', / (WRITE|RESERVED) /, stdout);
    await writer.exec('ROLLBACK');
  });

  test('sqlsync doctor writes nothing, and no writer or reader in any mode notices it', async (t) => {
    const folder = tempDir(t);
    for (const mode of ['wal', 'delete', 'truncate', 'persist']) {
      const path = join(folder, `${mode}.db`);
      smallDatabase(path, { rows: 40 });
      change(path, `PRAGMA journal_mode = ${mode}; CREATE TABLE w (x)`);
      const before = folderState(folder);
      await doctor([path]);
      assert.deepEqual(folderState(folder), before, `${mode}, idle`);
      // With a timeout of 0 each lock of ours would be an error here.
      const writer = await new OtherProcess(t).open(path, { timeoutMs: 0 });
      const command = new Command(['doctor', path]);
      let commits = 0;
      const ended = command.done.then(() => true);
      const more = (): Promise<boolean> => Promise.race([ended, writer.exec('SELECT 1').then(() => false)]);
      while (!(await more())) {
        await writer.exec('BEGIN EXCLUSIVE; INSERT INTO w VALUES (1); COMMIT');
        commits++;
      }
      assert.ok(commits > 0, mode);
      await writer.call('close');
    }
  });

  test('sqlsync doctor --full keeps no writer waiting, and creates no file beside an idle database', async (t) => {
    const folder = tempDir(t);
    for (const mode of ['wal', 'delete']) {
      const path = join(folder, `${mode}.db`);
      smallDatabase(path, { rows: 2000 });
      change(path, `PRAGMA journal_mode = ${mode}; CREATE TABLE w (x)`);
      const before = Object.keys(folderState(folder));
      const idle = await doctor(['--full', path]);
      assert.deepEqual([idle.facts.full?.unchecked, idle.facts.full?.faults], [[], []]);
      assert.deepEqual(Object.keys(folderState(folder)), before, mode);
      const writer = await new OtherProcess(t).open(path, { timeoutMs: 0 });
      const command = new Command(['doctor', '--full', path]);
      const ended = command.done.then(() => true);
      const more = (): Promise<boolean> => Promise.race([ended, writer.exec('SELECT 1').then(() => false)]);
      while (!(await more())) await writer.exec('BEGIN IMMEDIATE; INSERT INTO w VALUES (1); COMMIT');
      await writer.call('close');
    }
  });

  test('sqlsync doctor --full is given up when the -wal takes half of the free space', async (t) => {
    const path = join(tempDir(t), 'a.db-wal');
    writeFileSync(path, Buffer.alloc(1000));
    const growth = watchGrowth(path, 10_000, 5);
    t.after(() => growth.end());
    await delay(50);
    assert.equal(growth.signal.aborted, false);
    writeFileSync(path, Buffer.alloc(7000));
    await once(growth.signal, 'abort');
  });

  test('sqlsync doctor --full finds damage and broken references, and measures tables and what VACUUM gives back', async (t) => {
    const path = join(tempDir(t), 'a.db');
    change(
      path,
      `PRAGMA foreign_keys = OFF;
       CREATE TABLE big (id INTEGER PRIMARY KEY, x); CREATE INDEX by_x ON big (x);
       WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000) INSERT INTO big SELECT i, hex(randomblob(50)) FROM n;
       DELETE FROM big WHERE id % 3 <> 0;
       CREATE TABLE child (parent REFERENCES big (id)); INSERT INTO child VALUES (1), (2), (3)`,
    );
    const { facts, findings, status } = await doctor(['--full', path]);
    assert.equal(status, 1);
    const { full } = facts;
    assert.deepEqual(full?.brokenReferences, [{ table: 'child', parent: 'big', rows: 2 }]);
    findingOf(findings, 'broken-references');
    const pages =
      (full?.sizes ?? []).reduce((sum, size) => sum + size.pages, 0) + (facts.header?.freePages ?? 0);
    assert.equal(pages, facts.header?.pageCount, 'all pages are accounted for');
    assert.deepEqual(
      full?.sizes
        .slice(0, 2)
        .map(({ name, table }) => [name, table])
        .toSorted(([a = ''], [b = '']) => a.localeCompare(b)),
      [
        ['big', 'big'],
        ['by_x', 'big'],
      ],
    );
    const before = statSync(path).size;
    change(path, 'VACUUM');
    const saved = before - statSync(path).size;
    const promised = full?.vacuumBytes ?? 0;
    assert.ok(promised > saved * 0.8 && promised < saved * 1.2, `${promised} promised, ${saved} saved`);
    const root = new Database(path, { readonly: true });
    const page = root
      .prepare("SELECT rootpage FROM sqlite_schema WHERE name = 'by_x'")
      .pluck()
      .get() as number;
    root.close();
    damage(path, (page - 1) * 4096 + 4000, Buffer.alloc(96, 255));
    const damaged = await doctor(['--full', path]);
    assert.equal(findingOf(damaged.findings, 'damaged').severity, 'danger');
    assert.ok((damaged.facts.full?.faults.length ?? 0) > 0);
  });

  test('sqlsync doctor -q says what is dangerous, and nothing else', async (t) => {
    const path = join(tempDir(t), 'a.db');
    smallDatabase(path, { journalMode: 'delete' });
    damage(path, 21, Buffer.from([1]));
    const { status, stdout, stderr } = await sqlsync(['doctor', '-q', path]);
    assert.deepEqual([status, stdout], [1, '']);
    assert.match(stderr, /^warning: .*damaged.*\n$/);
  });

  test('sqlsync doctor fails with the code of what it was given', async (t) => {
    const folder = tempDir(t);
    const { status, stderr } = await sqlsync(['doctor', join(folder, 'none.db')]);
    assert.equal(status, 3);
    assert.match(stderr, /does not exist \[ORIGIN_NOT_FOUND\]/);
  });

  test(
    'sqlsync doctor says what a user without rights cannot see, and shows the locks all the same',
    { skip: NEEDS_ROOT },
    async (t) => {
      const folder = openFolder(t);
      mkdirSync(join(folder, 'data'), { mode: 0o755 });
      const path = join(folder, 'data', 'a.db');
      smallDatabase(path);
      const other = new OtherProcess(t);
      const writer = await other.open(path);
      await writer.exec('BEGIN IMMEDIATE');
      const seen = await doctor([path], { user: NOBODY });
      assert.match(
        seen.facts.unseen.join(),
        /\d+ processes whose open files this user may not see may have the database open/,
      );
      const one = seen.facts.processes.find(({ pid }) => pid === other.pid);
      assert.equal(one?.isVisible, false);
      assert.match(one?.command ?? '', /node/);
      assert.ok(ids(seen.findings).includes('write-lock-held'));
      const asRoot = await doctor([path]);
      assert.doesNotMatch(asRoot.facts.unseen.join(), /whose open files this user may not see/);
      assert.equal(asRoot.facts.processes.find(({ pid }) => pid === other.pid)?.isVisible, true);
      await writer.exec('ROLLBACK');
      for (const suffix of ['-wal', '-shm'].filter((each) => existsSync(`${path}${each}`))) {
        chmodSync(`${path}${suffix}`, 0o600);
        const part = await doctor([path], { user: NOBODY });
        assert.match(part.facts.unseen.join(), new RegExp(`may not read the .*${suffix}`));
        assert.ok(part.facts.processes.some(({ pid }) => pid === other.pid));
      }
      chmodSync(path, 0o600);
      const refused = await sqlsync(['doctor', path], { user: NOBODY });
      assert.equal(refused.status, 3);
      assert.match(refused.stderr, /may not be read by this user \[ORIGIN_PERMISSION\]/);
    },
  );
});

describe('the facts of a peer', { skip: LINUX }, () => {
  test('the facts of a peer are read as they were sent, and refused if a part of them has another form', async (t) => {
    const path = join(tempDir(t), 'a.db');
    smallDatabase(path);
    await (await new OtherProcess(t).open(path)).exec('SELECT 1 FROM sqlite_schema');
    const facts = await collectFacts(path);
    const bytes = (value: unknown): Uint8Array => new TextEncoder().encode(JSON.stringify(value));
    assert.deepEqual(readFacts(bytes(facts)), JSON.parse(JSON.stringify(facts)));
    let changed = 0;
    const visit = (value: unknown, put: (other: unknown) => void): void => {
      for (const wrong of [{ a: 1 }, [[]], 'text', 7, true]) {
        if (typeof wrong === typeof value && Array.isArray(wrong) === Array.isArray(value)) continue;
        // A read mark is a number or null.
        if (value === null && wrong === 7) continue;
        put(wrong);
        assert.throws(() => readFacts(bytes(facts)), /has another form/);
        changed++;
      }
      put(value);
      if (typeof value !== 'object' || value === null) return;
      for (const [name, inner] of Object.entries(value))
        visit(inner, (other) => ((value as Record<string, unknown>)[name] = other));
    };
    for (const [name, value] of Object.entries(facts))
      visit(value, (other) => ((facts as unknown as Record<string, unknown>)[name] = other));
    assert.ok(changed > 100);
  });

  test('the facts of a peer write nothing on a terminal but text', async (t) => {
    const path = join(tempDir(t), 'a.db');
    smallDatabase(path);
    const facts = { ...(await collectFacts(path)), unseen: ['a\u001b[31m\nb'] };
    const read = readFacts(new TextEncoder().encode(JSON.stringify(facts)));
    assert.deepEqual(read.unseen, ['a\ufffd[31m ↵ b']);
  });
});
