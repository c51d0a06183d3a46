import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { parseDuration, parseSize } from '../../src/cli/options/quantities.ts';
import { assertRefused } from './command.ts';

describe('a duration', () => {
  test('a duration is a number of seconds, or has a unit', () => {
    const given = ['30', '0.5', '.5', '500ms', '30s', '5m', '1.5h', '168H', ' 2 ', '1d', '7D'];
    assert.deepEqual(
      given.map((text) => parseDuration('--max-snapshot', text)),
      [30_000, 500, 500, 500, 30_000, 300_000, 5_400_000, 604_800_000, 2000, 86_400_000, 604_800_000],
    );
  });

  test('a duration may be 0 only where 0 means something', () => {
    for (const text of ['0', '0s', '0.0', '0ms', '0d']) {
      assert.equal(parseDuration('--timeout', text, true), 0);
      assert.throws(() => parseDuration('--max-time', text), { code: 'USAGE' });
    }
    assert.throws(() => parseDuration('--timeout', '0.0001', true), { code: 'USAGE' });
  });

  for (const text of ['', '0', '0.0001', '-1', '5 m', '8d', '169h', '1e3', 'NaN', 'ms', '1w', 'd']) {
    test(`a duration is not ${JSON.stringify(text)}`, () => {
      assert.throws(() => parseDuration('--max-snapshot', text), {
        code: 'USAGE',
        message: /^--max-snapshot: /,
      });
    });
  }
});

describe('a size', () => {
  test('a size is a number of bytes, or has a unit', () => {
    const given = ['1', '1000', '10b', '64K', '64KiB', '64kb', '1.5m', '2G', '1t'];
    assert.deepEqual(
      given.map((text) => parseSize('--max-wal-growth', text)),
      [1, 1000, 10, 65_536, 65_536, 64_000, 1_572_864, 2 ** 31, 2 ** 40],
    );
  });

  for (const text of ['', '0', '-1', '64 M', '1x', '9999999T', 'M']) {
    test(`a size is not ${JSON.stringify(text)}`, () => {
      assert.throws(() => parseSize('--max-wal-growth', text), { code: 'USAGE' });
    });
  }
});

for (const [option, value, says] of [
  ['--retry', '-1', /--retry: "-1" is not a whole number from 0 on/],
  ['--retry', '1.5', /--retry: "1\.5" is not a whole number/],
  ['--retry', 'often', /--retry: "often" is not a whole number/],
  ['--max-snapshot', 'soon', /--max-snapshot: "soon" is not a duration/],
  ['--max-wal-growth', 'much', /--max-wal-growth: "much" is not a size/],
] as const) {
  test(`${option} ${value} is refused`, async () => {
    await assertRefused(['a.db', 'b.db', `${option}=${value}`], { code: 'USAGE', status: 2, says });
  });
}
