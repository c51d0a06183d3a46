import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { sync, verify } from '../../src/index.ts';
import type { SyncOptions } from '../../src/index.ts';
import { syncTaskOptions } from '../../src/library/options.ts';
import { libraryChildren, rejection } from './running-sync.ts';

const PATHS = { origin: 'a.db', replica: 'r.db' };

const REFUSED: Record<string, { options: unknown; says: RegExp }> = {
  'no options at all': { options: undefined, says: /got undefined; expected an object/ },
  'no origin': { options: { replica: 'r.db' }, says: /origin is undefined; expected a string/ },
  'an empty replica': { options: { origin: 'a.db', replica: '' }, says: /replica is ""; expected a string/ },
  'a path with a NUL byte': { options: { ...PATHS, origin: 'a\0b' }, says: /NUL byte/ },
  'a location of another scheme': { options: { ...PATHS, origin: 'http://a/b' }, says: /scheme/ },
  'an option that it does not have': { options: { ...PATHS, dryrun: true }, says: /no option dryrun/ },
  'a dryRun that is no boolean': {
    options: { ...PATHS, dryRun: 1 },
    says: /dryRun is 1; expected true or false/,
  },
  'a hash it does not know': {
    options: { ...PATHS, hash: 'md5' },
    says: /hash is "md5"; expected one of nh-siphash, sha256, xxh64/,
  },
  'a negative time': {
    options: { ...PATHS, busyTimeoutMs: -1 },
    says: /busyTimeoutMs is -1; expected .* from 0/,
  },
  'a time in seconds and parts': {
    options: { ...PATHS, idleTimeoutMs: 0.5 },
    says: /whole number of milliseconds/,
  },
  'a time that is NaN': { options: { ...PATHS, connectTimeoutMs: NaN }, says: /connectTimeoutMs is NaN/ },
  'a port out of range': {
    options: { ...PATHS, port: 65536 },
    says: /port is 65536; expected a port number from 1/,
  },
  'one identity file instead of an array': {
    options: { ...PATHS, identityFiles: 'key' },
    says: /expected an array of paths/,
  },
  'a listener that is no function': {
    options: { ...PATHS, onProgress: {} },
    says: /onProgress is an object; expected a function/,
  },
  'a signal that is an AbortController': {
    options: { ...PATHS, signal: new AbortController() },
    says: /expected an AbortSignal/,
  },
};

describe('the refusals of sync()', () => {
  for (const [name, { options, says }] of Object.entries(REFUSED)) {
    test(`sync() refuses ${name} before it starts anything`, async () => {
      const outcome = sync(options as SyncOptions);
      assert.deepEqual(libraryChildren(process.pid), []);
      const failure = await rejection(outcome);
      assert.equal(failure.code, 'USAGE');
      assert.match(failure.message, says);
    });
  }
});

test('verify() refuses an option that only sync() has', async () => {
  const options = { a: 'a.db', b: 'b.db', dryRun: true };
  const failure = await rejection(verify(options));
  assert.deepEqual([failure.code, failure.message], ['USAGE', 'verify() has no option dryRun']);
  assert.match(failure.hint ?? '', /busyTimeoutMs/);
});

test('an option that is undefined counts as not given', () => {
  const options = syncTaskOptions({ origin: '/a.db', replica: '/r.db', port: undefined, signal: undefined });
  assert.deepEqual(options, { origin: '/a.db', replica: '/r.db' });
});

test('local paths become absolute, of any spelling; remote ones stay', () => {
  const { origin, replica, identityFiles } = syncTaskOptions({
    origin: './host:a.db',
    replica: 'me@host:r.db',
    identityFiles: ['key'],
  });
  const cwd = process.cwd();
  assert.deepEqual([origin, replica, identityFiles], [`${cwd}/host:a.db`, 'me@host:r.db', [`${cwd}/key`]]);
});
