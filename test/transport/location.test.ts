import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { formatLocation, parseLocation } from '../../src/transport/location.ts';
import type { Location } from '../../src/transport/location.ts';

describe('a local path', () => {
  for (const path of [
    'a.db',
    '/a.db',
    './a:b',
    '/a:b',
    '../x/y:z',
    'dir/a:b',
    'C:\\x',
    'c:\\a:b',
    'a b',
    '-x',
    '@',
  ]) {
    test(`${JSON.stringify(path)} is a local path`, () => {
      assert.deepEqual(parseLocation(path), { kind: 'local', path });
    });
  }
});

describe('a remote path', () => {
  const remote: [string, Omit<Extract<Location, { kind: 'ssh' }>, 'kind'>][] = [
    ['db1:app.db', { host: 'db1', path: 'app.db' }],
    ['deploy@db1:/srv/app.db', { user: 'deploy', host: 'db1', path: '/srv/app.db' }],
    ['me@example.org@db1:x', { user: 'me@example.org', host: 'db1', path: 'x' }],
    ['db1:with space:and colon', { host: 'db1', path: 'with space:and colon' }],
    ['db1:~/app.db', { host: 'db1', path: 'app.db' }],
    ['db1:./~/app.db', { host: 'db1', path: './~/app.db' }],
    ['db1:$(rm -rf x)', { host: 'db1', path: '$(rm -rf x)' }],
    ['[::1]:/x', { host: '::1', path: '/x' }],
    ['deploy@[fe80::1%eth0]:x', { user: 'deploy', host: 'fe80::1%eth0', path: 'x' }],
    ['ssh://db1/srv/app.db', { host: 'db1', path: '/srv/app.db' }],
    ['ssh://deploy@db1:2222/srv/a%20b.db', { user: 'deploy', host: 'db1', port: 2222, path: '/srv/a b.db' }],
    ['ssh://[::1]:2222/x', { host: '::1', port: 2222, path: '/x' }],
    ['SSH://db1/~/app.db', { host: 'db1', path: 'app.db' }],
    ['git+ssh://deploy@db1:2222/x', { user: 'deploy', host: 'db1', port: 2222, path: '/x' }],
    ['SSH+git://db1/~/x', { host: 'db1', path: 'x' }],
    ['ssh://db1:/x', { host: 'db1', path: '/x' }],
  ];
  for (const [text, expected] of remote) {
    test(`${JSON.stringify(text)} is a remote path`, () => {
      assert.deepEqual(parseLocation(text), { kind: 'ssh', ...expected });
    });
  }
});

describe('a location is refused with USAGE and a hint', () => {
  const refused: [string, RegExp][] = [
    ['', /empty/],
    ['a\0b', /NUL/],
    ['db1:', /no path/],
    ['db1:~', /no path/],
    [':x', /host .* is empty/],
    ['@db1:x', /user .* is empty/],
    ['deploy@:x', /host .* is empty/],
    ['-oProxyCommand=touch x:y', /starts with a dash/],
    ['-l@db1:y', /user .* starts with a dash/],
    ['ssh://-oProxyCommand=x/y', /starts with a dash/],
    ['db 1:x', /white space/],
    ['db\u001b1:x', /white space or control/],
    ['ssh://db1', /no path/],
    ['ssh://db1/', /no path/],
    ['ssh://db1:0/x', /port/],
    ['ssh://db1:65536/x', /port/],
    ['ssh://db1:22x/y', /not a name/],
    ['ssh://::1/y', /not a name/],
    ['ssh://db1/%zz', /percent/],
    ['ssh://db1/%00', /NUL/],
    ['ssh://deploy:secret@db1/x', /password/],
    ['db1:~deploy/x', /home folder/],
    ['rsync://db1/x', /scheme/],
    ['https://db1/x', /scheme/],
  ];
  for (const [text, message] of refused) {
    test(`${JSON.stringify(text)} is refused as a location with USAGE and a hint`, () => {
      assert.throws(() => parseLocation(text), { code: 'USAGE', message, hint: /./ });
    });
  }

  test('no message about a location repeats control characters or a password', () => {
    for (const text of ['db\u001b[31m:x', 'ssh://deploy:secret@db1/x']) {
      assert.throws(
        () => parseLocation(text),
        // oxlint-disable-next-line no-control-regex -- that is what must not be there
        (error: Error) => !/secret|[\u0000-\u001f]/.test(error.message),
      );
    }
  });
});

test('any location that was formatted reads back as the same', () => {
  const path = fc.string({ minLength: 1, unit: 'binary' }).filter((text) => !text.includes('\0'));
  const name = fc.stringMatching(/^[A-Za-z0-9_.][A-Za-z0-9_.@:/-]{0,9}$/);
  const host = fc.oneof(fc.domain(), fc.ipV4(), fc.ipV6(), fc.constantFrom('c', 'ssh', 'db1'));
  const location = fc.record(
    { kind: fc.constant('ssh' as const), user: name, host, port: fc.integer({ min: 1, max: 65535 }), path },
    { requiredKeys: ['kind', 'host', 'path'] },
  );
  fc.assert(
    fc.property(location, (given) => {
      if (given.path === '/') return; // A folder.
      const expected = given.path.startsWith('~') ? `./${given.path}` : given.path;
      assert.deepEqual(parseLocation(formatLocation(given as Location)), { ...given, path: expected });
    }),
  );
  fc.assert(
    fc.property(path, (given) => {
      const read = parseLocation(formatLocation({ kind: 'local', path: given }));
      assert.equal(read.kind, 'local');
      assert.equal(read.path.replace(/^\.\//, ''), given.replace(/^\.\//, ''));
    }),
  );
});
