import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { inspectPrivateKey, parsePublicKeyFile } from '../../src/transport/ssh/ssh-key-file.ts';

const folder = mkdtempSync(join(tmpdir(), 'sqlsync-keys-'));
after(() => rmSync(folder, { recursive: true }));

for (const format of ['RFC4716', 'PEM', 'PKCS8']) {
  for (const passphrase of ['', 'open sesame']) {
    const kind = passphrase === '' ? 'plain' : 'encrypted';
    test(`a private key as ssh-keygen -m ${format} writes it is recognized as ${kind}`, () => {
      const path = join(folder, `${format}-${kind}`);
      execFileSync('ssh-keygen', [
        '-q',
        '-t',
        'rsa',
        '-b',
        '2048',
        '-m',
        format,
        '-N',
        passphrase,
        '-f',
        path,
      ]);
      const info = inspectPrivateKey(readFileSync(path, 'utf8'));
      assert.equal(info?.encrypted, passphrase !== '');
      // ssh-keygen's RFC4716 means OpenSSH's own format, the one that carries the public key in the clear.
      const publicKey = parsePublicKeyFile(readFileSync(`${path}.pub`, 'utf8'));
      assert.ok(publicKey !== undefined);
      if (format === 'RFC4716') assert.deepEqual(info?.publicKey, publicKey);
    });
  }
}

test('a file that is no private key is recognized as none', () => {
  const cut = `-----BEGIN OPENSSH PRIVATE KEY-----\n${Buffer.from('openssh-key-v1\0\0\0').toString('base64')}\n-----END OPENSSH`;
  for (const text of ['', 'ssh-ed25519 AAAA', '-----BEGIN CERTIFICATE-----', cut]) {
    assert.equal(inspectPrivateKey(text), undefined);
  }
  for (const text of ['', 'ssh-ed25519', 'ssh-ed25519 AAAA', 'x y z'])
    assert.equal(parsePublicKeyFile(text), undefined);
});
