import assert from 'node:assert/strict';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { findSnapshot } from '../../src/backup/snapshots/find-snapshot.ts';
import type { StoreSnapshot } from '../../src/backup/types.ts';
import { policyOf } from '../../src/cli/store/keep-policy.ts';
import { expandOrigins } from '../../src/cli/store/origins.ts';
import {
  chooseSnapshot,
  filterSnapshots,
  parseSnapshotReference,
} from '../../src/cli/store/snapshot-choice.ts';
import { formatTable } from '../../src/cli/terminal/table.ts';
import { smallDatabase } from '../pages/databases.ts';
import { tempDir } from '../support/compare.ts';

process.env['TZ'] = 'Europe/Berlin';

function snapshot(id: string, time: string, more: Partial<StoreSnapshot> = {}): StoreSnapshot {
  return {
    id: id.padEnd(64, '0'),
    time: new Date(time),
    host: 'db1',
    path: '/srv/app.db',
    tags: [],
    pageSize: 4096,
    pageCount: 1,
    fileMode: 0o644,
    root: undefined,
    parent: undefined,
    program: 'sqlsync',
    statistics: {
      pagesChanged: 0,
      pagesAdded: 0,
      nodesAdded: 0,
      bytesAdded: 0,
      bytesReceived: 0,
      durationMs: 0,
    },
    ...more,
  };
}

const HISTORY = [
  snapshot('aaaa1', '2026-11-19T12:00:00+01:00'),
  snapshot('aaaa2', '2026-11-20T00:30:00+01:00', { tags: ['release'] }),
  snapshot('bbbb3', '2026-11-20T23:59:30.500+01:00'),
  snapshot('cccc4', '2026-11-21T00:00:00+01:00', { tags: ['release', 'eu'] }),
];
const MAIL = snapshot('dddd5', '2026-11-21T08:00:00Z', { path: '/srv/mail/app.db', host: 'db2' });

describe('STORE#WHICH', () => {
  test('STORE#WHICH is split at its last #, if something follows that can name a snapshot', (t) => {
    for (const [text, store, which] of [
      ['store', 'store', 'latest'],
      ['store#latest', 'store', 'latest'],
      ['/srv/a#b/store#0123abcd', '/srv/a#b/store', '0123abcd'],
      ['store#2026-11-20T08:00', 'store', '2026-11-20T08:00'],
      ['#0123', '', '0123'],
      ['c#', 'c#', 'latest'],
      ['c#sharp', 'c#sharp', 'latest'],
      ['store#012', 'store#012', 'latest'],
    ] as const) {
      assert.deepEqual(parseSnapshotReference(text), { store, which }, text);
    }
    const folder = join(tempDir(t), 'store#latest');
    mkdirSync(folder);
    for (const what of [
      '',
      '012',
      'zzzz',
      '2026-02-30',
      '2026-02-29T08:00',
      '2026-13-01',
      '2026-11-21T24:00',
      '2026-11-21T08',
      '2026-11-21x',
    ]) {
      assert.throws(
        () => parseSnapshotReference(`${folder}#${what}`),
        { code: 'USAGE', hint: /2026-11-21T08:00/ },
        what,
      );
      assert.throws(() => parseSnapshotReference(`#${what}`), { code: 'USAGE' }, what);
    }
    assert.equal(parseSnapshotReference(`${folder}#2028-02-29 08:00`).which, '2028-02-29 08:00');
    assert.deepEqual(parseSnapshotReference(folder), { store: folder, which: 'latest' });
    assert.deepEqual(parseSnapshotReference(`${folder}#aaaa`), { store: folder, which: 'aaaa' });
  });

  test('STORE#ID finds a snapshot by the beginning of its id, and none if several begin so', () => {
    assert.equal(chooseSnapshot([...HISTORY, MAIL], 'BBBB').id, HISTORY[2]?.id);
    assert.equal(chooseSnapshot(HISTORY, 'aaaa2').id, HISTORY[1]?.id);
    assert.throws(() => chooseSnapshot(HISTORY, 'aaaa'), {
      code: 'SNAPSHOT_NOT_FOUND',
      message: /^2 snapshots/,
    });
    assert.throws(() => chooseSnapshot(HISTORY, 'eeee'), { code: 'SNAPSHOT_NOT_FOUND' });
    // The id says enough: the filters that narrow down other choices do not apply to it.
    assert.equal(chooseSnapshot([...HISTORY, MAIL], 'dddd', { host: 'db1' }).id, MAIL.id);
  });

  test('STORE#TIME finds the newest snapshot until then, on the clock of this machine if it has no zone', () => {
    for (const [which, at] of [
      ['latest', 3],
      ['2026-11-21', 3],
      ['2026-11-20', 2],
      ['2026-11-20T23:59', 2],
      ['2026-11-20T23:59:30', 2],
      ['2026-11-20T23:59:29', 1],
      ['2026-11-20T22:59:29Z', 1],
      ['2026-11-20T00:29', 0],
      ['2026-11-19T23:30Z', 1],
      ['2026-11-20 23:59', 2],
    ] as const) {
      assert.equal(chooseSnapshot(HISTORY, which).id, HISTORY[at]?.id, which);
    }
    for (const [snapshots, which, host, message] of [
      [
        HISTORY,
        '2026-11-18',
        'db1',
        /before the end of 2026-11-18; the oldest .* 2026-11-19 12:00:00\+01:00$/,
      ],
      [HISTORY, 'latest', 'db2', /^The store has snapshots, but none of that --path and --host$/],
      [[], 'latest', undefined, /^The store has no snapshot yet$/],
    ] as const)
      assert.throws(() => chooseSnapshot(snapshots, which, { host }), {
        code: 'SNAPSHOT_NOT_FOUND',
        message,
      });
  });

  test('STORE#latest means one database: of several the user has to name one', () => {
    const all = [...HISTORY, MAIL];
    for (const which of ['latest', '2026-11-21']) {
      assert.throws(() => chooseSnapshot(all, which), {
        code: 'USAGE',
        message: /2 databases: db1:\/srv\/app\.db/,
      });
    }
    assert.throws(() => findSnapshot(all, 'latest', 'store'), { code: 'USAGE', message: /2 databases/ });
    assert.equal(findSnapshot(HISTORY, 'latest', 'store').id, HISTORY[3]?.id);
    assert.equal(chooseSnapshot(all, 'latest', { path: '/srv/app.db' }).id, HISTORY[3]?.id);
    assert.equal(chooseSnapshot(all, 'latest', { path: 'mail/app.db' }).id, MAIL.id);
    assert.equal(chooseSnapshot(all, 'latest', { host: 'db2' }).id, MAIL.id);
    assert.throws(() => chooseSnapshot(all, 'latest', { path: 'app.db' }), { code: 'USAGE' });
  });
});

test('a filter takes host, path or its end in whole names, and any of the lists of tags', () => {
  const all = [...HISTORY, MAIL];
  const ids = (filter: Parameters<typeof filterSnapshots>[1]): string[] =>
    filterSnapshots(all, filter).map(({ id }) => id.slice(0, 5));
  assert.deepEqual(ids({}), ['aaaa1', 'aaaa2', 'bbbb3', 'cccc4', 'dddd5']);
  assert.deepEqual(ids({ path: 'pp.db' }), []);
  assert.deepEqual(ids({ tag: ['release'] }), ['aaaa2', 'cccc4']);
  assert.deepEqual(ids({ tag: ['release,eu', ''], host: 'db1' }), ['aaaa1', 'bbbb3', 'cccc4']);
});

describe('--keep-…', () => {
  test('--keep options become a policy, or none if none is given', () => {
    assert.equal(policyOf({}), undefined);
    assert.deepEqual(policyOf({ keepDaily: '7', keepLast: 'unlimited', keepTag: ['a,b', 'c'] }), {
      daily: 7,
      last: 'unlimited',
      tags: [['a', 'b'], ['c']],
    });
    assert.deepEqual(policyOf({ keepWithinMonthly: '1y' }), {
      withinMonthly: { years: 1, months: 0, days: 0, hours: 0 },
    });
  });

  test('--keep options are refused if they are no numbers or spans, or keep nothing', () => {
    for (const text of ['', '-1', '7d', 'all', '1.5', '1e9']) {
      assert.throws(() => policyOf({ keepLast: text }), { code: 'USAGE', message: /--keep-last/ }, text);
    }
    assert.throws(() => policyOf({ keepWithin: '7' }), { code: 'USAGE', message: /--keep-within: / });
    assert.throws(() => policyOf({ keepLast: '0', keepWithin: '0d' }), { code: 'USAGE', message: /empty/ });
  });
});

describe('a pattern', () => {
  test('a pattern stands for the databases that match it, and not for the files beside them', (t) => {
    const folder = tempDir(t);
    for (const name of ['b.db', 'a.db', 'c[1].db']) smallDatabase(join(folder, name), { rows: 1 });
    for (const name of ['a.db-wal', 'notes.db.txt']) writeFileSync(join(folder, name), 'no database');
    for (const name of ['b.db-wal', 'empty.db']) writeFileSync(join(folder, name), '');
    mkdirSync(join(folder, 'd.db'));
    const [notes, warnings]: [string[], string[]] = [[], []];
    const listeners = {
      isBackedUp: () => false,
      onNote: (note: string) => notes.push(note),
      onWarning: (warning: string) => warnings.push(warning),
    };
    const expanded = (...given: string[]): string[] =>
      expandOrigins(given, listeners).map(({ origin, error }) => error?.code ?? origin);
    assert.deepEqual(
      expanded(join(folder, '*.db*'), join(folder, 'a.db')),
      ['a.db', 'b.db', 'c[1].db', 'empty.db'].map((name) => join(folder, name)),
    );
    assert.deepEqual([notes.length, warnings.length], [3, 1], 'the folder is a note too');
    assert.match(warnings[0] as string, /notes\.db\.txt matches .*\*\.db\*, but is no database/);
    assert.deepEqual(expanded(join(folder, 'c[1].db')), [join(folder, 'c[1].db')], 'a name, not a pattern');
    assert.deepEqual(expanded('host:*.db', 'none.db'), ['host:*.db', 'none.db'], 'nobody knows yet');
    assert.deepEqual(expanded(join(folder, 'x*.db'), 'b.db'), ['ORIGIN_NOT_FOUND', 'b.db']);
  });
});

test('a table has columns as wide as their cells, leaves out empty ones, and shows nobody’s control characters', () => {
  const rows = [
    { name: 'a', size: 1, empty: '' },
    { name: 'b\u001b[31m\nc', size: 1000, empty: '' },
  ];
  const table = formatTable(rows, [
    { title: 'Name', cell: ({ name }) => name },
    { title: 'Empty', cell: ({ empty }) => empty },
    { title: 'Size', isRight: true, cell: ({ size }) => String(size) },
  ]);
  assert.equal(table, 'Name      Size\na            1\nb\ufffd[31m c  1000');
});
