import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { test } from 'node:test';
import { judge } from '../../src/doctor/judge/judge.ts';
import { FACTS } from './some-facts.ts';

test('a line to copy has the path of the database as one word of the shell, whatever its name', () => {
  const path = "/srv/a b; echo $(id) 'x/app.db";
  const facts = { ...FACTS, path, database: { ...FACTS.database, hardLinks: 2 } };
  const { mend = '' } = judge(facts).find(({ id }) => id === 'hard-links') ?? {};
  const [, words = ''] = /-samefile (.*); and remove/.exec(mend) ?? [];
  assert.equal(execFileSync('sh', ['-c', `printf '<%s>' ${words}`], { encoding: 'utf8' }), `<${path}>`);
});
