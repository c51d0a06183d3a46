import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { copyFileSync, mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { describe, test } from 'node:test';
import type { TestContext } from 'node:test';
import { smallDatabase } from '../pages/databases.ts';
import { tempDir } from '../support/compare.ts';
import { COMPILE_CACHE, PROGRAM, summaryOf } from './command.ts';

const ROOT = dirname(dirname(import.meta.dirname));
const README = readFileSync(join(ROOT, 'README.md'), 'utf8');
const [MANUAL = '', REMOTE = '', JOBS = '', DRILL = ''] = ['backup', 'remote', 'jobs', 'server-gone'].map(
  (name) => readFileSync(join(ROOT, 'docs', `${name}.md`), 'utf8'),
);

/** Blocks of code with their language; those without are lines of a crontab, of authorized_keys, or output. */
function blocks(text: string): { readonly kind: string; readonly code: string }[] {
  const found = text.matchAll(/^```(\w*)\n(.*?)^```$/gms);
  return [...found].map(([, kind = '', code = '']) => ({ kind, code }));
}

/** The lines that the reader types: those that run sqlsync, without a prompt or the fields of a crontab. */
function linesOf({ kind, code }: { kind: string; code: string }): string[] {
  const prompt = { sh: '', console: '\\$ ', '': '(?:[\\d*/]+ ){5}' }[kind];
  if (prompt === undefined) return [];
  const lines = code.matchAll(new RegExp(`^${prompt}(sqlsync .*)$`, 'gm'));
  return [...lines].map(([, line]) => line as string);
}

/**
 * A machine as the manuals describe it: a user's folder, /srv and /tmp, and a sqlsync on it and on every
 * other host.
 */
class Machine {
  readonly here: string;
  readonly #root: string;
  readonly #env: NodeJS.ProcessEnv;

  constructor(t: TestContext) {
    this.#root = tempDir(t);
    const [here, there, bin] = ['here', 'there', 'bin'].map((name) => join(this.#root, name)) as [
      string,
      string,
      string,
    ];
    for (const folder of [here, there, bin, this.at('/tmp'), this.at('/srv/backup')])
      mkdirSync(folder, { recursive: true });
    this.here = here;
    script(join(bin, 'sqlsync'), `exec '${process.execPath}' '${PROGRAM}' "$@"`);
    // Another host has the same files, and another home.
    script(join(bin, 'rsh'), `[ "$1" = -l ] && shift 2\nshift\ncd '${there}'\nexec sh -c "$*"`);
    this.#env = {
      ...process.env,
      PATH: `${bin}:${process.env['PATH']}`,
      SQLSYNC_RSH: join(bin, 'rsh'),
      XDG_CACHE_HOME: join(this.#root, 'cache'),
      NODE_COMPILE_CACHE: COMPILE_CACHE,
    };
  }

  /** The place of a path of the manuals. */
  at(path: string): string {
    return join(this.#root, path);
  }

  run(line: string): { status: number | null; stdout: string; stderr: string } {
    const moved = line.replaceAll(/(?<=[\s:=]|^)\/(?=srv\/|tmp\/)/g, `${this.#root}/`);
    return spawnSync('sh', ['-c', moved], { cwd: this.here, env: this.#env, encoding: 'utf8' });
  }
}

function script(path: string, body: string): void {
  writeFileSync(path, `#!/bin/sh\n${body}\n`, { mode: 0o755 });
}

function assertRuns(machine: Machine, line: string): { stdout: string; stderr: string } {
  const { status, stdout, stderr } = machine.run(line);
  assert.equal(status, 0, `${line}\n${stdout}${stderr}`);
  return { stdout, stderr };
}

/** A day with a snapshot, and an id of a snapshot. */
function withReal(line: string, id: string): string {
  const today = new Date().toISOString().slice(0, 10);
  return line.replaceAll('2026-11-20', today).replaceAll('1a2b3c4d', id.slice(0, 8));
}

describe('the README, and the manuals that it leads to', () => {
  const lines = [README, REMOTE, JOBS].flatMap(blocks).flatMap(linesOf);
  // The account that these need is in test/cli/install.test.ts and test/cli/restrict-key.test.ts.
  const changesHost = (line: string): boolean => / setup .*--(?:un)?install/.test(line);
  const printsKey = (line: string): boolean => / setup .*--restrict/.test(line) && !changesHost(line);
  // Others need an OpenSSH that logs in somewhere, or a container.
  const single = lines.filter(
    (line) => !/ -e |\/srv\/store| completion /.test(line) && !changesHost(line) && !printsKey(line),
  );

  test(`the README shows ${single.length} command lines without a store`, () =>
    assert.ok(single.length >= 9));

  for (const line of single) {
    test(`the README shows a command that works: ${line}`, async (t) => {
      const machine = new Machine(t);
      const [origin = ''] = /(?:\S+@\S+:|db1:)?\/srv\/(?:app\.db|tenants)|(?<= )app\.db/.exec(line) ?? [];
      smallDatabase(machine.at('/srv/app.db'), { rows: 40 });
      mkdirSync(machine.at('/srv/tenants/cache'), { recursive: true });
      for (const name of ['one', 'cache/two'])
        smallDatabase(machine.at(`/srv/tenants/${name}.db`), { rows: 4 });
      if (/ (app\.db) \S/.test(line)) smallDatabase(join(machine.here, 'app.db'), { rows: 40 });
      if (/ (verify|doctor) /.test(line))
        copyFileSync(machine.at('/srv/app.db'), join(machine.here, 'app.db'));
      assert.notEqual(origin, '');
      const { stdout } = assertRuns(machine, line);
      if (/ -q /.test(line)) assert.equal(stdout, '');
      else assert.match(stdout, /\S/);
    });
  }

  test('the README shows options of installations that there are', (t) => {
    const named = new Set(lines.filter(changesHost).flatMap((line) => line.match(/ --[a-z-]+/g) ?? []));
    assert.ok(named.size >= 4);
    const { stdout } = assertRuns(new Machine(t), 'sqlsync setup --help');
    for (const option of named) assert.ok(stdout.includes(option), option);
  });

  for (const line of lines.filter(printsKey))
    test(`the README shows how to print the line for a key: ${line}`, (t) => {
      const machine = new Machine(t);
      const [, name = ''] = /--key (\S+)/.exec(line) ?? [];
      const key = Buffer.alloc(51);
      key.writeUInt32BE(11);
      key.write('ssh-ed25519', 4);
      key.writeUInt32BE(32, 15);
      writeFileSync(join(machine.here, name), `ssh-ed25519 ${key.toString('base64')} test\n`);
      assert.match(
        assertRuns(machine, line).stdout,
        /^restrict,command="sqlsync agent --restrict .*ssh-ed25519 /m,
      );
    });

  test('the README shows a store from its first day to a restore', (t) => {
    const machine = new Machine(t);
    smallDatabase(machine.at('/srv/app.db'), { rows: 40 });
    const ofStore = lines.filter((line) => line.includes('/srv/store'));
    assert.ok(ofStore.length >= 4);
    for (const line of ofStore) assertRuns(machine, withReal(line, ''));
  });
});

describe('the manual of a server that is gone', () => {
  const drills = blocks(DRILL).filter((block) => linesOf(block).length > 1);

  test('the manual of a lost server shows three ways back', () => assert.equal(drills.length, 3));

  for (const drill of drills) {
    const [first = ''] = linesOf(drill);
    test(`the manual of a lost server shows a way that works, line by line: ${first}`, async (t) => {
      const machine = new Machine(t);
      const [origin, lost] = [machine.at('/srv/app.db'), machine.at('/srv/lost.db')];
      smallDatabase(origin, { rows: 40 });
      await summaryOf(['init', machine.at('/srv/store')]);
      await summaryOf(['backup', origin, machine.at('/srv/store')]);
      await summaryOf([origin, machine.at('/srv/backup/app.db')]);
      const before = readFileSync(origin);
      renameSync(origin, lost);
      const outputs = linesOf(drill).map((line) => assertRuns(machine, line));
      assert.deepEqual(readFileSync(origin), before);
      assert.match(outputs.at(-1)?.stdout ?? '', /same|equal|identical/i);
      // The earlier job goes on with the restored database.
      const nightly = /`(sqlsync -q .*?)`/s.exec(DRILL)?.[1]?.replaceAll(/\s+/g, ' ') ?? '';
      assert.equal(assertRuns(machine, nightly).stdout, '');
    });
  }
});

describe('the manual of backups', () => {
  const shown = blocks(MANUAL).filter((block) => linesOf(block).length > 0);

  test('the manual of backups shows several blocks of command lines', () => assert.ok(shown.length >= 6));

  for (const block of shown) {
    const [first = ''] = linesOf(block);
    test(`the manual of backups shows commands that work, one line after the other: ${first}`, async (t) => {
      const machine = new Machine(t);
      smallDatabase(machine.at('/srv/app.db'), { rows: 40 });
      let id = '';
      if (!first.startsWith('sqlsync init /srv/store')) {
        await summaryOf(['init', machine.at('/srv/store')]);
        const { backups } = (await summaryOf([
          'backup',
          machine.at('/srv/app.db'),
          machine.at('/srv/store'),
        ])) as {
          backups?: { snapshot: { id: string } }[];
        };
        id = backups?.[0]?.snapshot.id ?? '';
      }
      for (const line of linesOf(block)) {
        const { stdout, stderr } = assertRuns(machine, withReal(line, id));
        if (/ -q /.test(line)) assert.deepEqual([stdout, stderr], ['', '']);
      }
    });
  }
});
