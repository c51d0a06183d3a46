import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { describe, test } from 'node:test';
import { checkCommandLine, readCommandLine } from '../../src/cli/command-line.ts';
import { tempDir } from '../support/compare.ts';

const ROOT = dirname(dirname(import.meta.dirname));
const README = readFileSync(join(ROOT, 'README.md'), 'utf8');
const MANUAL = readFileSync(join(ROOT, 'docs', 'backup.md'), 'utf8');

const NEEDS_SYSTEMD =
  spawnSync('systemd-analyze', ['--version']).status === 0
    ? false
    : 'NOT TESTED: there is no systemd-analyze here';

/** What stands in the blocks of code of these kinds. */
function blocks(text: string, kinds: string): string[] {
  return [...text.matchAll(new RegExp(`^\`\`\`(?:${kinds})\\n(.*?)^\`\`\`$`, 'gms'))].map(
    ([, block]) => block as string,
  );
}

/** The words of the command lines that a text shows, as a shell splits them. */
function commandLines(text: string): string[][] {
  const lines = blocks(text, 'sh|console|').flatMap((block) => block.split('\n'));
  return lines.flatMap((line) => {
    const command = /^(?:\$ |(?:[\d*/]+ ){5})?(?:npx )?sqlsync (.*?)(?:\s+#\s.*)?$/.exec(line)?.[1];
    if (command === undefined) return [];
    const words = command.match(/(?:'[^']*'|"[^"]*"|[^\s'"])+/g) ?? [];
    return [words.map((word) => word.replaceAll(/['"]/g, ''))];
  });
}

describe('the manuals', () => {
  test('show command lines that the program takes', () => {
    const lines = [...commandLines(README), ...commandLines(MANUAL)];
    assert.ok(lines.length > 20, `${lines.length} lines`);
    for (const words of lines) checkCommandLine(readCommandLine(words));
    const commands = new Set(lines.map((words) => readCommandLine(words).command));
    for (const command of ['sync', 'verify', 'setup', 'init', 'backup', 'snapshots', 'restore']) {
      assert.ok(commands.has(command), command);
    }
  });

  test('show systemd units that systemd takes', { skip: NEEDS_SYSTEMD }, (t) => {
    const folder = tempDir(t);
    const [service, timer, ...others] = blocks(README, 'ini');
    assert.equal(others.length, 0);
    // Whether the program is there, and the user, is another question.
    writeFileSync(
      join(folder, 'sqlsync-app.service'),
      (service as string).replace('/usr/local/bin/sqlsync', process.execPath),
    );
    writeFileSync(join(folder, 'sqlsync-app.timer'), timer as string);
    const units = ['sqlsync-app.service', 'sqlsync-app.timer'].map((name) => join(folder, name));
    const { status, stderr } = spawnSync('systemd-analyze', ['verify', ...units], { encoding: 'utf8' });
    assert.equal(status, 0, stderr);
    const faults = stderr.split('\n').filter((line) => line.includes('sqlsync-app'));
    assert.deepEqual(faults, []);
  });
});
