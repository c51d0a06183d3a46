import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Tally } from './group.ts';
import { faultTable } from './table.ts';

test('a tally counts outcomes, and keeps each breach of the invariant with where it was seen', async () => {
  const tally = new Tally('kill at fsync');
  await tally.add('number 1', () => Promise.resolve('old'));
  await tally.add('number 2', () => Promise.resolve('old'));
  await tally.add('number 3', () => Promise.reject(new Error('the replica is torn')));
  assert.equal(tally.times, 3);
  assert.deepEqual(tally.outcomes, { old: 2, BROKEN: 1 });
  assert.deepEqual(tally.broken, ['kill at fsync, number 3: the replica is torn']);
  assert.match(
    faultTable([Object.assign(tally, { group: 'kill' })]),
    /\| kill +\| kill at fsync \| 3 +\| old 2, BROKEN 1 \|/,
  );
});
