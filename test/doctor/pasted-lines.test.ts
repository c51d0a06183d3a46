import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { test } from 'node:test';
import type { Facts } from '../../src/doctor/facts.ts';
import { judge } from '../../src/doctor/judge/judge.ts';

test('a line to copy has the path of the database as one word of the shell, whatever its name', () => {
  const path = "/srv/a b; echo $(id) 'x/app.db";
  const facts = {
    path,
    host: 'db1',
    database: {
      bytes: 8192,
      uid: 0,
      user: 'root (uid 0)',
      mode: 0o644,
      hardLinks: 2,
      isMountedAlone: false,
      isNetwork: false,
      blockBytes: 4096,
    },
    header: { pageSize: 4096, isWal: true, autoVacuum: 'none', freePages: 0, sqliteVersion: 3_053_001 },
    wal: { isInUse: false },
    processes: [],
    locks: [],
    lookedForMs: 300,
    health: { problems: [] },
    unseen: [],
  } as const satisfies Facts;
  const { mend = '' } = judge(facts).find(({ id }) => id === 'hard-links') ?? {};
  const [, words = ''] = /-samefile (.*); and remove/.exec(mend) ?? [];
  assert.equal(execFileSync('sh', ['-c', `printf '<%s>' ${words}`], { encoding: 'utf8' }), `<${path}>`);
});
