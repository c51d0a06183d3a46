import assert from 'node:assert/strict';
import { test } from 'node:test';
import { wrongTurns } from './turns.ts';

/** Each turn is `what at place origin`. */
function wrongOf(...turns: string[]): string[] {
  return wrongTurns(turns.map((turn) => `${turn.replaceAll(' ', '|')}\n`).join(''), () => 10_000);
}

test('copies of one target that overlap, or come twice, are found', () => {
  const overlap = wrongOf('begin 0 store a', 'begin 100 store b', 'after 200 store a', 'after 300 store b');
  assert.deepEqual(overlap, ['store a: b began before its end']);
  const twice = wrongOf('begin 0 copy a', 'after 100 copy a', 'begin 200 copy a', 'after 300 copy a');
  assert.deepEqual(twice, ['copy a: made twice, 200 ms apart']);
});

test('copies one after another are right, also after a failure, a kill of the service and a removal', () => {
  const one = ['begin 0 store a', 'after 100 store a', 'begin 150 store b', 'after 200 store b'];
  assert.deepEqual(wrongOf(...one, 'begin 10000 store a', 'after 10100 store a'), []);
  assert.deepEqual(
    wrongOf('begin 0 store a', 'begin 100 store b', 'failure 110 store a', 'after 200 store b'),
    [],
  );
  for (const end of ['failure 50 copy a', 'killed 50  ', 'removed 50  a'])
    assert.deepEqual(wrongOf('begin 0 copy a', end, 'begin 100 copy a', 'after 200 copy a'), [], end);
});
