import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { chownSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { describe, test } from 'node:test';
import { argumentsOf } from '../../src/cli/arguments.ts';
import { readCommandLine } from '../../src/cli/command-line.ts';
import { openFolder, smallDatabase } from '../pages/databases.ts';
import { tempDir } from '../support/compare.ts';
import { NEEDS_ROOT, NOBODY, PROGRAM, summaryOf } from './command.ts';

const ROOT = dirname(dirname(import.meta.dirname));
const README = readFileSync(join(ROOT, 'README.md'), 'utf8');
const JOBS = readFileSync(join(ROOT, 'docs', 'jobs.md'), 'utf8');
const OTHERS = ['remote', 'server-gone', 'service'].map((name) =>
  readFileSync(join(ROOT, 'docs', `${name}.md`), 'utf8'),
);
const MANUAL = readFileSync(join(ROOT, 'docs', 'backup.md'), 'utf8');

const SERVICE = readFileSync(join(ROOT, 'docs', 'service.md'), 'utf8');

const NEEDS_SYSTEMD =
  spawnSync('systemd-analyze', ['--version']).status === 0
    ? false
    : 'NOT TESTED: there is no systemd-analyze here';

/** The content of the code blocks of these kinds. */
function blocks(text: string, kinds: string): string[] {
  return [...text.matchAll(new RegExp(`^\`\`\`(?:${kinds})\\n(.*?)^\`\`\`$`, 'gms'))].map(
    ([, block]) => block as string,
  );
}

/** The words of the command lines in a text, as a shell splits them. */
function commandLines(text: string): string[][] {
  const lines = blocks(text, 'sh|console|').flatMap((block) => block.split('\n'));
  return lines.flatMap((line) => {
    const command = /^(?:\$ |(?:[\d*/]+ ){5})?sqlsync (.*?)(?:\s+[#>]\s.*)?$/.exec(line)?.[1];
    if (command === undefined) return [];
    const words = command.match(/(?:'[^']*'|"[^"]*"|[^\s'"])+/g) ?? [];
    return [words.map((word) => word.replaceAll(/['"]/g, ''))];
  });
}

describe('the manuals', () => {
  test('the manuals show command lines that the program takes', async () => {
    const lines = [README, MANUAL, JOBS, ...OTHERS].flatMap(commandLines);
    assert.ok(lines.length > 20, `${lines.length} lines`);
    const commands = new Set<string>();
    for (const words of lines) {
      const line = await readCommandLine(words);
      await assert.doesNotReject(argumentsOf(line), words.join(' '));
      commands.add(line.command.name);
    }
    for (const command of ['sync', 'verify', 'setup', 'init', 'backup', 'snapshots', 'restore']) {
      assert.ok(commands.has(command), command);
    }
  });

  test('the manuals show systemd units that systemd takes', { skip: NEEDS_SYSTEMD }, (t) => {
    const folder = tempDir(t);
    for (const [text, file, unit] of [
      [JOBS, 'sqlsync-app', 'sqlsync-app'],
      [MANUAL, 'sqlsync-backup@', 'sqlsync-backup@app'],
    ] as const) {
      const [service, timer, ...others] = blocks(text, 'ini');
      assert.equal(others.length, 0);
      // The check does not ask whether the program and the user exist.
      const runnable = (service as string).replace('/usr/local/bin/sqlsync', '/bin/sh');
      writeFileSync(join(folder, `${file}.service`), runnable);
      writeFileSync(join(folder, `${file}.timer`), timer as string);
      const units = ['service', 'timer'].map((kind) => join(folder, `${unit}.${kind}`));
      const { status, stderr } = spawnSync('systemd-analyze', ['verify', ...units], { encoding: 'utf8' });
      assert.equal(status, 0, stderr);
      const faults = stderr.split('\n').filter((line) => line.includes(file));
      assert.deepEqual(faults, []);
    }
  });

  test('the manual of the service shows a systemd unit that systemd takes', { skip: NEEDS_SYSTEMD }, (t) => {
    const folder = tempDir(t);
    const [unit = '', ...others] = blocks(SERVICE, 'ini');
    assert.equal(others.length, 0);
    const path = join(folder, 'sqlsync.service');
    writeFileSync(path, unit.replaceAll('/usr/local/bin/sqlsync', '/bin/sh'));
    const { status, stderr } = spawnSync('systemd-analyze', ['verify', path], { encoding: 'utf8' });
    assert.equal(status, 0, stderr);
    assert.deepEqual(
      stderr.split('\n').filter((line) => line.includes('sqlsync.service')),
      [],
    );
  });

  test(
    'the manuals show a unit whose command needs nothing but what the unit gives it',
    { skip: NEEDS_ROOT },
    async (t) => {
      const folder = openFolder(t);
      const [origin, store] = [join(folder, 'app.db'), join(folder, 'store')];
      smallDatabase(origin);
      await summaryOf(['init', store]);
      for (const path of [folder, origin, store, join(store, 'config')])
        chownSync(path, NOBODY.uid, NOBODY.gid);
      const [unit = ''] = blocks(MANUAL, 'ini');
      const [file = ''] = blocks(MANUAL, 'conf');
      const settings = new Map(
        file
          .trim()
          .split('\n')
          .map((line) => line.split(/=(.*)/s) as [string, string]),
      );
      settings.set('ORIGINS', origin).set('STORE', store);
      const command = /^ExecStart=\/usr\/local\/bin\/sqlsync (.*)$/m.exec(unit)?.[1] ?? '';
      const words = command
        .split(' ')
        .flatMap((word) =>
          word.startsWith('$') ? (settings.get(word.slice(1)) as string).split(' ') : word,
        );
      const env = {
        PATH: '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin',
        XDG_CACHE_HOME: folder,
        ...Object.fromEntries(settings),
      };
      assert.match(unit, /^Environment=XDG_CACHE_HOME=/m);
      const { status, stdout, stderr } = spawnSync(process.execPath, [PROGRAM, ...words], {
        env,
        cwd: '/',
        ...NOBODY,
        encoding: 'utf8',
      });
      assert.deepEqual([status, stderr], [0, ''], stdout);
      assert.match(stdout, /^Snapshot [0-9a-f]{8} of .*app\.db: .*\nNothing to remove/);
    },
  );
});
