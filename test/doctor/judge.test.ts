import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { describe, test } from 'node:test';
import { readFacts } from '../../src/doctor/facts-shape.ts';
import type { Facts } from '../../src/doctor/facts.ts';
import { judge } from '../../src/doctor/judge/judge.ts';
import { shellWord } from '../../src/doctor/judge/words.ts';
import { presentReport } from '../../src/cli/doctor/present-report.ts';
import { findingOf, ids } from './holders.ts';
import { A_FILE, aLock, aProcess, FACTS, HEADER } from './some-facts.ts';

const ROLLBACK: Facts = { ...FACTS, header: { ...HEADER, isWal: false } };
const JOURNAL = { ...A_FILE, isUnfinished: true, isHot: true };

/** Facts with as many findings as one database can have. */
function manyFindings(path: string): Facts[] {
  const bytes = 1e9;
  const database = {
    ...FACTS.database,
    bytes,
    hardLinks: 2,
    isMountedAlone: true,
    isNetwork: true,
    blockBytes: 4096,
  };
  const header = {
    ...HEADER,
    pageSize: 1024,
    autoVacuum: 'full',
    freePages: 900_000,
    sqliteVersion: 3_040_000,
  } as const;
  const foreign = { ...A_FILE, bytes, uid: 0, user: 'root' };
  const state = {
    frames: 20_000,
    checkpointed: 0,
    readMarks: [],
    commits: 1,
    index: '1:2',
    pageCount: 1,
    newFrames: 0,
    newCommits: 0,
  };
  const isOpen = { ...aProcess(7), hasOtherWal: true, hasDeletedFile: true, otherName: path, isMapped: true };
  const all = {
    ...FACTS,
    path,
    database,
    header,
    processes: [isOpen, aProcess(8)],
    health: { problems: ['it is'] },
  };
  return [
    { ...all, wal: { isInUse: true, hasFrames: true, file: foreign, index: foreign, state } },
    {
      ...all,
      wal: { isInUse: true, hasFrames: true, file: foreign, state: { ...state, checkpointed: 20_000 } },
    },
    { ...all, wal: { isInUse: false, hasFrames: true, file: foreign }, processes: [] },
    {
      ...all,
      wal: { isInUse: false, hasFrames: true, file: foreign },
      journal: JOURNAL,
      header: { ...header, isWal: false },
    },
  ];
}

describe('the judgement of facts', () => {
  test('doctor finds nothing wrong with an idle database', () => {
    assert.deepEqual(judge(FACTS), []);
    assert.match(presentReport({ facts: FACTS, findings: [] }, 'a.db'), /No process has it open\./);
  });

  test('where not all locks are seen, their absence proves no killed writer', () => {
    const unseen = ['Something is not seen.'];
    const states: Record<string, Facts> = {
      'hot-journal': { ...ROLLBACK, journal: JOURNAL },
      'wal-beside-rollback': { ...ROLLBACK, wal: { isInUse: false, hasFrames: true, file: A_FILE } },
      'wal-without-process': { ...FACTS, wal: { isInUse: false, hasFrames: true, file: A_FILE } },
    };
    for (const [id, facts] of Object.entries(states)) {
      assert.equal(findingOf(judge(facts), id).severity, id === 'wal-without-process' ? 'advice' : 'danger');
      for (const sight of ['some', 'files'] as const) {
        const limited = { ...facts, sight, unseen };
        const findings = judge(limited);
        assert.equal(findingOf(findings, id).severity, 'advice', `${id} ${sight}`);
        assert.match(findingOf(findings, id).meaning, /only if no program uses the database/);
        const page = presentReport({ facts: limited, findings }, 'a.db');
        assert.doesNotMatch(page, /No process has|no process has|A killed writer left/);
      }
    }
  });

  test('a path is one word of a shell in the line of each finding, whatever a host or a user called it', () => {
    const seen = new Set<string>();
    for (const path of ['/a b;$(x)\'"`', '-rf', '/srv/$HOME', '/a\\b']) {
      const said = execFileSync('sh', ['-c', `printf %s ${shellWord(path)}`], { encoding: 'utf8' });
      assert.equal(said, path === '-rf' ? './-rf' : path);
      for (const facts of manyFindings(path))
        for (const { id, mend } of judge(facts)) {
          const words = ['', '-wal', '-shm', '-wal.old'].map((suffix) => shellWord(`${path}${suffix}`));
          const rest = words
            .toSorted((a, b) => b.length - a.length)
            .reduce((text, word) => text.replaceAll(word, ' '), mend);
          assert.ok(!rest.includes(path), `${id}: ${mend}`);
          if (rest !== mend) seen.add(id);
        }
    }
    for (const id of [
      'damaged',
      'hard-links',
      'other-wal',
      'foreign-wal',
      'hot-journal',
      'wal-without-process',
    ])
      assert.ok(seen.has(id), id);
  });

  test('numbers of a peer that would harm a line or a page are refused', () => {
    const facts = { ...FACTS, processes: [{ ...aProcess(7), startedAtMs: 1 }], locks: [aLock(7, 'WRITE')] };
    const read = (other: unknown): unknown => readFacts(new TextEncoder().encode(JSON.stringify(other)));
    assert.deepEqual(read(facts), facts);
    const [one] = facts.processes;
    for (const wrong of [
      { ...facts, processes: [{ ...one, pid: -1 }] },
      { ...facts, processes: [{ ...one, pid: 1.5 }] },
      { ...facts, processes: [{ ...one, startedAtMs: 1e300 }] },
      { ...facts, locks: [{ ...aLock(0, 'WRITE') }] },
      { ...facts, database: { ...facts.database, uid: 1e21 } },
      { ...facts, database: { ...facts.database, bytes: -1 } },
    ])
      assert.throws(() => read(wrong), /has another form/);
  });

  test('doctor advises WAL mode only where that does no harm, and small pages leave the mode as it is', () => {
    const reader = { ...aLock(8, 'SHARED', false) };
    const shared = {
      ...ROLLBACK,
      processes: [aProcess(7), aProcess(8)],
      locks: [aLock(7, 'PENDING'), reader],
    };
    const mends = (facts: Facts): string =>
      judge(facts)
        .filter(({ id }) => ['rollback-shared', 'readers-block-writer'].includes(id))
        .map(({ mend }) => mend)
        .join('\n');
    assert.match(mends(shared), /or use WAL mode[^]*journal_mode = WAL/);
    for (const place of [{ isNetwork: true }, { isMountedAlone: true }, { hardLinks: 2 }])
      assert.doesNotMatch(
        mends({ ...shared, database: { ...shared.database, ...place } }),
        /journal_mode = WAL|or use WAL/,
      );
    const small = { ...FACTS, header: { ...HEADER, pageSize: 1024 } };
    assert.match(findingOf(judge(small), 'small-pages').mend, /VACUUM; PRAGMA journal_mode = WAL"$/);
    assert.doesNotMatch(
      findingOf(judge({ ...small, header: { ...small.header, isWal: false } }), 'small-pages').mend,
      /WAL/,
    );
  });

  test('doctor finds what is wrong with the place of a database, with libraries and with a large WAL', () => {
    const at = (more: Partial<Facts['database']>): Facts => ({
      ...FACTS,
      database: { ...FACTS.database, ...more },
    });
    const libraries = ['/lib/libsqlite3.so.0', '/app/better_sqlite3.node'];
    const large = { ...A_FILE, bytes: 100e6 };
    const state = { frames: 10, checkpointed: 10, readMarks: [], commits: 1, index: '1:2', pageCount: 1 };
    const states: readonly (readonly [Facts, string, string])[] = [
      [at({ isNetwork: true, fileSystem: 'nfs4' }), 'network', 'danger'],
      [at({ fileSystem: 'overlay' }), 'overlay', 'advice'],
      [at({ isMountedAlone: true }), 'mounted-alone', 'danger'],
      [{ ...FACTS, processes: [aProcess(7, { libraries })] }, 'several-libraries', 'advice'],
      [
        {
          ...FACTS,
          wal: {
            isInUse: true,
            hasFrames: true,
            file: large,
            state: { ...state, newFrames: 0, newCommits: 0 },
          },
        },
        'wal-large',
        'advice',
      ],
    ];
    for (const [facts, id, severity] of states) {
      assert.deepEqual(ids(judge(facts)), [id]);
      assert.equal(findingOf(judge(facts), id).severity, severity);
    }
  });

  test('a -wal that a process may have open was not left by a program that ended', () => {
    const left = { ...FACTS, wal: { isInUse: false, hasFrames: true, file: A_FILE } };
    assert.deepEqual(ids(judge(left)), ['wal-without-process']);
    assert.deepEqual(ids(judge({ ...left, processes: [aProcess(7)] })), []);
    assert.deepEqual(ids(judge({ ...left, locks: [aLock(7, 'EXCLUSIVE')] })), ['exclusive']);
  });

  test('the same facts with nothing unseen keep their worst words', () => {
    const found = judge({ ...ROLLBACK, journal: JOURNAL });
    assert.deepEqual(ids(found), ['hot-journal']);
    assert.match(findingOf(found, 'hot-journal').title, /^A killed writer left /);
  });
});
