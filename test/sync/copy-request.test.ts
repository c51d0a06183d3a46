import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { MESSAGES, NO_SHRINK_LIMIT } from '../../protocol/messages.ts';
import {
  COPY_REQUEST,
  copyRequest,
  decodeRequest,
  encodeRequest,
} from '../../src/sync/request/copy-request.ts';
import type { CopyRequest } from '../../src/sync/request/copy-request.ts';

const anyRequest = fc.record(
  Object.fromEntries(
    Object.entries(COPY_REQUEST).map(([name, field]) => {
      if (field.kind === 'flag') return [name, fc.boolean()];
      if (field.kind === 'choice') return [name, fc.constantFrom(...Object.keys(field.values))];
      if (field.kind === 'percentage')
        return [name, fc.option(fc.integer({ min: 0, max: 100 }), { nil: undefined })];
      return [name, fc.nat()];
    }),
  ),
) as unknown as fc.Arbitrary<CopyRequest>;

test('a request arrives at the other side unchanged', () => {
  fc.assert(
    fc.property(anyRequest, (request) =>
      assert.deepEqual(decodeRequest(encodeRequest(request)), { ...request }),
    ),
  );
});

test('each entry of a request is a field of `replicate`', () => {
  const fields = Object.keys(MESSAGES.replicate.fields);
  assert.deepEqual(
    Object.keys(COPY_REQUEST).filter((name) => !fields.includes(name)),
    [],
  );
});

test('an option that a caller leaves out, or gives as undefined, has its default', () => {
  const expected: CopyRequest = {
    hash: 'nh-siphash',
    compression: 'auto',
    dryRun: false,
    overwrite: false,
    replace: false,
    followLinks: false,
    check: false,
    full: false,
    fullEveryMs: 604_800_000,
    reader: 'file',
    busyTimeoutMs: 10_000,
    maxSnapshotMs: 0,
    maxWalGrowthBytes: 0,
    maxShrinkPercent: undefined,
  };
  assert.deepEqual(copyRequest({}), expected);
  assert.deepEqual(copyRequest({ reader: undefined, overwrite: true }), { ...expected, overwrite: true });
});

for (const [name, value] of [
  ['hash', 0],
  ['hash', 9],
  ['compression', 3],
  ['reader', 2],
  ['maxShrinkPercent', 101],
  ['maxShrinkPercent', NO_SHRINK_LIMIT - 1],
] as const) {
  test(`a peer that sends ${value} as ${name} breaks the protocol`, () => {
    const message = { ...encodeRequest(copyRequest({})), [name]: value };
    assert.throws(() => decodeRequest(message), {
      code: 'PROTOCOL',
      message: new RegExp(`${value} as ${name}`),
    });
  });
}
