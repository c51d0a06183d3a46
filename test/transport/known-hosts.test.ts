import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import { hostKeyFingerprint, knownKeyTypes, lookupHostKey } from '../../src/transport/ssh/known-hosts.ts';
import type { HostKeyLookup } from '../../src/transport/ssh/known-hosts.ts';
import { makeSshKey } from '../support/sshd.ts';

const folder = mkdtempSync(join(tmpdir(), 'sqlsync-known-hosts-'));
after(() => rmSync(folder, { recursive: true }));

interface Key {
  /** `type base64`, as a known_hosts line holds it. */
  text: string;
  blob: Buffer;
  publicFile: string;
}

const ed25519 = makeKey('ed25519', 'ed25519');
const otherEd25519 = makeKey('other', 'ed25519');
const rsa = makeKey('rsa', 'rsa');

function makeKey(name: string, type: 'ed25519' | 'rsa'): Key {
  const publicFile = `${makeSshKey(join(folder, name), type)}.pub`;
  const [keyType, base64 = ''] = readFileSync(publicFile, 'utf8').split(' ');
  return { text: `${keyType} ${base64}`, blob: Buffer.from(base64, 'base64'), publicFile };
}

function lookup(text: string, host: string, port = 22, key = ed25519): HostKeyLookup {
  return lookupHostKey([{ path: 'known_hosts', text }], host, port, key.blob);
}

test('a fingerprint is what ssh-keygen -l prints', () => {
  for (const key of [ed25519, rsa]) {
    const printed = execFileSync('ssh-keygen', ['-l', '-f', key.publicFile], { encoding: 'utf8' });
    assert.equal(printed.split(' ')[1], hostKeyFingerprint(key.blob));
  }
});

describe('a line names a host', () => {
  const table: [patterns: string, host: string, port: number, matches: boolean][] = [
    ['db1', 'db1', 22, true],
    ['db1', 'DB1', 22, true],
    ['DB1', 'db1', 22, true],
    ['db1', 'db10', 22, false],
    ['db1,192.0.2.1', '192.0.2.1', 22, true],
    ['*.example.org', 'db1.example.org', 22, true],
    ['*.example.org', 'example.org', 22, false],
    ['db?', 'db1', 22, true],
    ['db?', 'db', 22, false],
    ['d*b*1', 'd-b-b-1', 22, true],
    ['*,!db1', 'db1', 22, false],
    ['!db1,*', 'db2', 22, true],
    ['!db1', 'db2', 22, false],
    ['[db1]:2222', 'db1', 2222, true],
    ['[db1]:2222', 'db1', 22, false],
    ['[db1]:2222', 'db1', 2223, false],
    ['[::1]:2222', '::1', 2222, true],
    ['::1', '::1', 22, true],
    ['[*]:2222', 'db1', 2222, true],
    // As in OpenSSH: if no line names the port, a line for the host itself with this very key is enough.
    ['db1', 'db1', 2222, true],
  ];
  for (const [patterns, host, port, matches] of table) {
    test(`a line for ${patterns} ${matches ? 'names' : 'does not name'} ${host} on port ${port}`, () => {
      assert.equal(lookup(`${patterns} ${ed25519.text}`, host, port).status, matches ? 'match' : 'unknown');
    });
  }
});

test('lines that ssh-keygen -H hashed are found, and ssh-keygen -F agrees on the line', () => {
  const path = join(folder, 'hashed');
  writeFileSync(path, `db1,192.0.2.1 ${ed25519.text}\n[db2]:2222 ${rsa.text}\n`);
  execFileSync('ssh-keygen', ['-H', '-f', path], { stdio: 'ignore' });
  const text = readFileSync(path, 'utf8');
  assert.ok(!/db|192/.test(text.replaceAll(/ssh-\S+ \S+/g, '')), 'the names are hashed');
  for (const [host, port, key] of [
    ['db1', 22, ed25519],
    ['192.0.2.1', 22, ed25519],
    ['db2', 2222, rsa],
  ] as const) {
    const found = lookup(text, host, port, key);
    assert.equal(found.status, 'match');
    const name = port === 22 ? host : `[${host}]:${port}`;
    const printed = execFileSync('ssh-keygen', ['-F', name, '-f', path], { encoding: 'utf8' });
    assert.match(printed, new RegExp(`found: line ${found.line}`));
  }
  assert.equal(lookup(text, 'db3').status, 'unknown');
});

test('another key of the same type is a mismatch, which says which line expects which key', () => {
  const found = lookup(`# a comment\n\ndb1 ${otherEd25519.text} me@laptop\n`, 'db1');
  assert.equal(found.status, 'mismatch');
  assert.deepEqual([found.file, found.line], ['known_hosts', 3]);
  assert.equal(found.knownFingerprint, hostKeyFingerprint(otherEd25519.blob));
  assert.equal(found.fingerprint, hostKeyFingerprint(ed25519.blob));
});

test('a mismatch on the port is not excused by a line for the host itself', () => {
  const text = `[db1]:2222 ${otherEd25519.text}\ndb1 ${ed25519.text}\n`;
  assert.equal(lookup(text, 'db1', 2222).status, 'mismatch');
});

test('any one of several lines and files may hold the key', () => {
  const text = `db1 ${otherEd25519.text}\ndb1 ${rsa.text}\ndb1 ${ed25519.text}\n`;
  assert.deepEqual([lookup(text, 'db1').status, lookup(text, 'db1').line], ['match', 3]);
  const files = [
    { path: 'user', text: `db1 ${otherEd25519.text}` },
    { path: 'system', text: `db1 ${ed25519.text}` },
  ];
  const found = lookupHostKey(files, 'db1', 22, ed25519.blob);
  assert.deepEqual([found.status, found.file], ['match', 'system']);
});

test('a host with known keys of another type only is unknown, and the error names those keys', () => {
  const found = lookup(`db1 ${rsa.text}`, 'db1');
  assert.equal(found.status, 'unknown');
  assert.deepEqual(found.otherKeys, [
    { file: 'known_hosts', line: 1, keyType: 'ssh-rsa', fingerprint: hostKeyFingerprint(rsa.blob) },
  ]);
});

test('a revoked key is revoked, though other lines allow it', () => {
  const text = `db1 ${ed25519.text}\n@revoked * ${ed25519.text}\n`;
  assert.deepEqual([lookup(text, 'db1').status, lookup(text, 'db1').line], ['revoked', 2]);
  assert.equal(lookup(text, 'db1', 2222).status, 'revoked');
  assert.equal(lookup(`@revoked db1 ${otherEd25519.text}\ndb1 ${ed25519.text}`, 'db1').status, 'match');
});

test('a @cert-authority line vouches for nothing, but the error names it', () => {
  const found = lookup(`@cert-authority *.example.org ${ed25519.text}`, 'db1.example.org');
  assert.deepEqual([found.status, found.hasCertAuthority, found.otherKeys], ['unknown', true, []]);
  assert.equal(lookup(`@cert-authority *.example.org ${ed25519.text}`, 'db1').hasCertAuthority, false);
});

test('lines that say nothing are skipped', () => {
  const lines = [
    '',
    '#db1 ssh-ed25519 AAAA',
    'db1',
    'db1 ssh-ed25519',
    `db1 ${rsa.text.replace('ssh-rsa', 'ssh-ed25519')}`,
    'db1 1024 35 1234567',
    'db1 ssh-ed25519 !!!!',
    '|1|x db1 y',
    `|2|c2FsdA==|aGFzaA== ${ed25519.text}`,
    `|1|c2FsdA== ${ed25519.text}`,
    '@revoked',
  ];
  assert.equal(lookup(lines.join('\n'), 'db1').status, 'unknown');
  assert.equal(lookup(`${lines.join('\r\n')}\r\n  db1\t${ed25519.text}\r\n`, 'db1').status, 'match');
});

test('the algorithms to ask for are those of the known keys, an RSA key by its two SHA-2 names', () => {
  const files = [
    {
      path: 'known_hosts',
      text:
        `db1 ${rsa.text}\n[db1]:2222 ${ed25519.text}\ndb2 ${ed25519.text}\n@revoked db1 ${ed25519.text}\n` +
        `@cert-authority db1 ${ed25519.text}\n`,
    },
  ];
  assert.deepEqual(knownKeyTypes(files, 'db1', 22), ['rsa-sha2-512', 'rsa-sha2-256']);
  assert.deepEqual(knownKeyTypes(files, 'db1', 2222), ['ssh-ed25519', 'rsa-sha2-512', 'rsa-sha2-256']);
  assert.deepEqual(knownKeyTypes(files, 'db3', 22), []);
});

test('a pattern that is made to be slow gets an answer', () => {
  const pattern = `${'*a'.repeat(2000)}b`;
  assert.equal(lookup(`${pattern} ${ed25519.text}`, 'a'.repeat(4000)).status, 'unknown');
});
