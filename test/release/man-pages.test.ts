import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { test } from 'node:test';
import { PUBLIC_COMMAND_NAMES, loadCommands } from '../../src/cli/command-files.ts';
import { describeOption, groupOptions } from '../../src/cli/option-groups.ts';
import { manPages } from '../../src/release/man-pages.ts';

const NEEDS_GROFF =
  spawnSync('groff', ['--version']).status === 0 ? false : 'NOT TESTED: there is no groff here';

const commands = await loadCommands(PUBLIC_COMMAND_NAMES);
const pages = manPages(commands, '2026-12-31');

/** The page as a terminal shows it that is too wide to hyphenate, without emphasis and with single spaces. */
function shown(page: string): string {
  const args = ['-mdoc', '-ww', '-Tascii', '-P-c', '-P-b', '-P-u', '-rLL=2000n', '-K', 'utf8'];
  const { stdout, stderr } = spawnSync('groff', args, { input: page, encoding: 'utf8' });
  assert.equal(stderr, '');
  return words(stdout);
}

function words(text: string): string {
  return text.replaceAll(/\s+/g, ' ');
}

/** As a terminal with ASCII shows it. */
function plain(text: string): string {
  const ascii = text.replaceAll('’', "'").replaceAll('…', '...').replaceAll('–', '-').replaceAll('×', 'x');
  return words(ascii.replaceAll('`', '').replaceAll(/\[([^\]]*)\]\([^)]*\)/g, '$1'));
}

test('there is a page for each command for people, and one that lists them', () => {
  assert.deepEqual(
    [...pages.keys()],
    ['sqlsync.1', ...PUBLIC_COMMAND_NAMES.map((name) => `sqlsync-${name}.1`)],
  );
});

test('groff shows every page without a complaint', { skip: NEEDS_GROFF }, () => {
  const overview = shown(pages.get('sqlsync.1') as string);
  for (const { name, describe } of commands)
    assert.ok(overview.includes(plain(`${name} ${describe}.`)), name);
});

for (const command of commands) {
  test(
    `the page of ${command.name} shows its operands, its options with what they do, and its example`,
    { skip: NEEDS_GROFF },
    () => {
      const text = shown(pages.get(`sqlsync-${command.name}.1`) as string);
      assert.ok(text.includes(plain(command.example)), command.example);
      for (const [operand, what] of Object.entries(command.operands)) {
        assert.ok(text.includes(plain(`${operand} ${what}.`)), operand);
      }
      for (const [name, option] of [...groupOptions(command.options).values()].flat()) {
        assert.match(text, new RegExp(`--${name}(?![\\w-])`));
        assert.ok(text.includes(plain(`${describeOption(option)}.`)), `${name}: ${text}`);
        assert.ok(text.includes(plain(option.more ?? '')), `${name}: ${option.more}`);
      }
    },
  );
}
