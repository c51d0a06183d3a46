import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Pace, pauseAfterHashing } from '../../src/sync/quick/pace.ts';

const BURNT_MS = 50;

/** Uses the processor for so long. */
function burn(): void {
  const start = process.cpuUsage();
  for (;;) {
    const { user, system } = process.cpuUsage(start);
    if ((user + system) / 1000 >= BURNT_MS) return;
  }
}

test('a step that has hashed all pages, or has failed, is followed by a pause of three times its processor time', () => {
  for (const end of [(pace: Pace) => pace.end(true), (pace: Pace) => pace.giveUp()]) {
    const pace = new Pace();
    pace.start();
    burn();
    const before = performance.now();
    end(pace);
    assert.ok(pace.notBefore >= before + 3 * BURNT_MS);
  }
});

test('a step that knew its pages needs no pause, and the time between two steps is no part of one', () => {
  const pace = new Pace();
  pace.start();
  burn();
  pace.end(false);
  assert.equal(pace.notBefore, 0);
  burn();
  pace.giveUp();
  assert.equal(pace.notBefore, 0);
});

test('after a lost connection to a database of 100 GB, the pause is a minute', () => {
  assert.equal(pauseAfterHashing(100e9), 60_000);
});
