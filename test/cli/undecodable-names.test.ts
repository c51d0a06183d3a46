import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { decodeName } from '../../src/files/path-names.ts';
import { smallDatabase } from '../pages/databases.ts';
import { tempDir } from '../support/compare.ts';
import { PROGRAM } from './command.ts';

const LINUX = process.platform === 'linux' ? false : 'NOT TESTED: only here are the bytes to be seen';

/** Runs a line of sh, in which `sqlsync` is the program and $X is a byte that is no UTF-8. */
function shell(cwd: string, line: string): { status: number | null; stderr: string; names: string[] } {
  const script = `sqlsync() { "$NODE" "$PROGRAM" "$@"; }; X="$(printf '\\377')"; ${line}`;
  const { status, stderr } = spawnSync('/bin/sh', ['-c', script], {
    cwd,
    env: { ...process.env, NODE: process.execPath, PROGRAM },
    encoding: 'utf8',
  });
  return { status, stderr, names: readdirSync(cwd).sort() };
}

describe('bytes that are no UTF-8 never become another name', { skip: LINUX }, () => {
  const LINES = {
    'a new replica': 'sqlsync o.db "r$X.db"',
    'an origin': 'cp o.db "r$X.db"; sqlsync "r$X.db" r.db',
    'an origin whose lossy name exists too': `cp o.db "r$X.db"; cp o.db "$(printf 'r\\357\\277\\275.db')"; sqlsync "r$X.db" r.db`,
    'a database to compare': 'sqlsync verify o.db "o$X.db"',
    'a store': 'sqlsync init "s$X"',
    'a tag': 'sqlsync init s; sqlsync backup o.db s --tag "t$X"',
    'the value of an option': 'sqlsync -e "sh$X" host:o.db r.db',
    'a folder that an agent is restricted to': 'mkdir "d$X"; sqlsync agent --restrict "d$X"',
    'the cache folder': 'XDG_CACHE_HOME="$PWD/c$X" sqlsync --lock-wait 0 o.db r.db',
    'the temporary folder': 'TMPDIR="$PWD/t$X" sqlsync o.db r.db',
    'the working folder': 'mkdir "d$X"; cd "d$X"; sqlsync ../o.db r.db',
    'a folder to which a link leads': `mkdir "d$X" "$(printf 'd\\357\\277\\275')"; ln -s "d$X" d; sqlsync o.db d/r.db`,
    'a file to which a link leads': `cp o.db "r$X.db"; cp o.db "$(printf 'r\\357\\277\\275.db')"; ln -s "r$X.db" l.db; sqlsync l.db r.db`,
  };
  for (const [name, line] of Object.entries(LINES)) {
    test(`${name} with bytes that are no UTF-8 is refused`, (t) => {
      const folder = tempDir(t);
      smallDatabase(join(folder, 'o.db'), { rows: 10, journalMode: 'delete' });
      const { status, stderr, names } = shell(folder, line);
      assert.match(stderr, /no UTF-8.*\[(USAGE|ORIGIN_\w+|REPLICA_\w+)\]/s);
      assert.ok([2, 3, 4].includes(status ?? -1), `${status}`);
      // No replica, store or cache is named so, and no file beside them.
      const made = names.filter((each) => !/^(o\.db|s|d|l\.db|r\ufffd\.db|d\ufffd)$/.test(each));
      assert.deepEqual(made, []);
    });
  }

  test('a name that really holds U+FFFD is just a name', (t) => {
    const folder = tempDir(t);
    smallDatabase(join(folder, 'o\ufffd.db'), { rows: 10, journalMode: 'delete' });
    mkdirSync(join(folder, 'd\ufffd'));
    const { status, stderr } = shell(
      folder,
      `U="$(printf '\\357\\277\\275')"; cd "d$U" && TMPDIR="$PWD" sqlsync "../o$U.db" "r$U.db"`,
    );
    assert.equal(status, 0, stderr);
    assert.deepEqual(readdirSync(join(folder, 'd\ufffd')).sort(), ['.r\ufffd.db.sqlsync', 'r\ufffd.db']);
  });
});

test('decodeName() tells names that cannot be decoded from those that can', (t) => {
  const folder = tempDir(t);
  writeFileSync(Buffer.concat([Buffer.from(join(folder, 'a')), Buffer.of(0xff)]), '');
  writeFileSync(join(folder, 'b\ufffdä🗄'), '');
  const decoded = readdirSync(folder, 'buffer').map(decodeName);
  assert.deepEqual(new Set(decoded), new Set(['b\ufffdä🗄', undefined]));
});
