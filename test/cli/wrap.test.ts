import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import stringWidth from 'string-width';
import { formatTable } from '../../src/cli/terminal/table.ts';
import { cutToColumns, padToColumns, wrapText } from '../../src/cli/terminal/wrap.ts';
import { assertRefused, sqlsync } from './command.ts';
import { MANUAL } from './reference.ts';
import { tempDir } from '../support/compare.ts';

describe('a text on a terminal', () => {
  test('a text on a terminal is broken between words, and indented below its first line', () => {
    const text = 'sqlsync: Origin app.db does not exist [ORIGIN_NOT_FOUND]';
    assert.equal(wrapText(text, 40, 9), 'sqlsync: Origin app.db does not exist\n         [ORIGIN_NOT_FOUND]');
  });

  test('a text on a terminal is indented below the value if a line begins with a name', () => {
    assert.equal(
      wrapText('copy.db is now\n  pages     255,588 pages compared (1.05 GB), 36,202 changed', 40),
      'copy.db is now\n  pages     255,588 pages compared (1.05\n            GB), 36,202 changed',
    );
  });

  test('a text on a terminal keeps commands, rows of tables and whole words as they are', () => {
    for (const line of [
      `         ssh -p 22 deploy@db1 'mkdir -p /srv/a/very/long/folder'`,
      'ID        Time                 Database              Size',
      'https://example.com/a/word/that/is/longer/than/the/line',
    ]) {
      assert.equal(wrapText(line, 40), line);
    }
    assert.equal(
      wrapText('Run it: `sqlsync restore /srv/store#latest app.db`.', 40),
      ['Run it:', '`sqlsync restore /srv/store#latest app.db`.'].join('\n'),
    );
  });

  test('a wrapped text has the same words, in lines that are no wider unless a single word is', () => {
    const word = fc.stringMatching(/^[a-z.,東京🚚é]{1,20}$/u);
    fc.assert(
      fc.property(fc.array(word), fc.integer({ min: 30, max: 120 }), (words, columns) => {
        const text = words.join(' ');
        const lines = wrapText(text, columns, 4).split('\n');
        assert.equal(lines.map((line) => line.trimStart()).join(' '), text);
        for (const line of lines) assert.ok(stringWidth(line) <= columns || !line.trim().includes(' '), line);
      }),
    );
  });

  for (const columns of [80, 60]) {
    test(`a text fits ${columns} columns as an error, a warning and help`, async (t) => {
      const cwd = tempDir(t);
      for (const args of [
        ['no-such-origin.db', 'copy.db'],
        ['a.db', '--timeuot', 'b.db'],
        ['--help'],
        ['backup', '-h'],
      ]) {
        const { stdout } = await sqlsync(args, {
          cwd,
          terminal: true,
          env: { ...COLOURLESS, COLUMNS: '' },
          columns,
        });
        const lines = stdout.split(/\r?\n/);
        assert.ok(lines.length > 1);
        // A path has to stay in one piece, even if the folder of this checkout is deep.
        for (const line of lines.filter((each) => each !== MANUAL))
          assert.ok(stringWidth(line) <= columns, `${columns}: ${line}`);
        assert.match(stdout, /\w \w/);
      }
    });
  }

  test('a text that goes into a pipe has one line for each sentence', async (t) => {
    const long = `${'x'.repeat(90)}.db`;
    await assertRefused(
      [long, 'copy.db'],
      { code: 'ORIGIN_NOT_FOUND', status: 3, says: new RegExp(`Origin .*${long} does not exist \\[`) },
      { cwd: tempDir(t) },
    );
  });
});

const COLOURLESS = { NO_COLOR: '1' };

describe('columns', () => {
  test('columns of a table are as wide as their cells, in any script', () => {
    const rows = [{ name: '東京.db' }, { name: '🚚.db' }, { name: 'app.db' }, { name: 'e\u0301.db' }];
    const table = formatTable(rows, [
      { title: 'Name', cell: ({ name }) => name },
      { title: 'Size', cell: () => '1 kB', isRight: true },
    ]);
    const starts = table
      .split('\n')
      .map((line) => stringWidth(line.slice(0, line.search(/ (Size|1 kB)$/) + 1)));
    assert.deepEqual(new Set(starts), new Set([9]));
  });

  test('columns are counted where a text is cut or filled up, and no character is cut in two', () => {
    assert.equal(cutToColumns('東京 99 %', 3), '東');
    assert.equal(cutToColumns('東京 99 %', 4), '東京');
    assert.equal(cutToColumns('👩‍👩‍👧‍👦x', 1), '');
    assert.equal(cutToColumns('👩‍👩‍👧‍👦x', 3), '👩‍👩‍👧‍👦x');
    assert.equal(padToColumns('東', 4), '東  ');
    assert.equal(padToColumns('東', 4, true), '  東');
  });
});
