import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Announcements } from '../../src/sync/request/announcements.ts';

test('a run prints the warnings and notes of all its rounds once, and made safe to show', () => {
  const said: string[] = [];
  const announcements = new Announcements({
    onWarning: (warning, kind) => said.push(`${kind}: ${warning}`),
    onNote: (note) => said.push(`note: ${note}`),
  });
  const snapshot = { wal: false, originPath: '/a.db', warnings: ['look\u001b[31m'], notes: ['old'] };
  for (let round = 0; round < 11; round++) announcements.snapshot(snapshot);
  assert.equal(said.length, 3);
  assert.match(said[0] as string, /^advice: \/a\.db is in rollback mode/);
  assert.deepEqual(said.slice(1), ['news: look\ufffd[31m', 'note: old']);
  assert.equal(announcements.warnings.length, 2);
});
