import assert from 'node:assert/strict';
import { KeyObject, randomBytes } from 'node:crypto';
import { buffer } from 'node:stream/consumers';
import { after, test } from 'node:test';
import type { Client } from 'ssh2';
import { connectSsh } from '../../src/transport/ssh/ssh.ts';
import { prepareCipherKeys } from '../../src/transport/ssh/ssh-cipher-keys.ts';
import { SSHD_MISSING, startSshd } from '../support/sshd.ts';
import type { Sshd } from '../support/sshd.ts';

const CIPHERS = ['aes128-gcm@openssh.com', 'aes256-gcm@openssh.com', 'aes128-ctr'];

for (const cipher of CIPHERS) {
  const started = await startSshd({ config: [`Ciphers ${cipher}`, 'RekeyLimit 1M'] });
  after(() => started?.stop());
  test(
    `bytes pass unchanged both ways under ${cipher}, while the keys are exchanged again and again`,
    { skip: started === undefined ? SSHD_MISSING : false, timeout: 120_000 },
    async (context) => {
      const { host, port, user, knownHostsFile, clientKey } = started as Sshd;
      const transport = await connectSsh({
        host,
        port,
        user,
        command: 'cat',
        knownHostsFiles: [knownHostsFile],
        identityFiles: [clientKey],
        agentSocket: false,
        configFile: 'none',
        ask: false,
      });
      context.after(() => transport.terminate());
      const sent = randomBytes(8 * 1024 * 1024);
      transport.output.end(sent);
      assert.ok(sent.equals(await buffer(transport.input)));
      assert.equal((await transport.exited).status, 0);
    },
  );
}

test('the keys of AES-GCM become key objects once, and a client of another form is left alone', () => {
  const cipher = { _encKey: randomBytes(16) as unknown };
  const decipher = { _decipherKey: randomBytes(16) as unknown };
  const client = { _protocol: { _cipher: cipher, _decipher: decipher } } as unknown as Client;
  prepareCipherKeys(client);
  const { _encKey: outKey } = cipher;
  const { _decipherKey: inKey } = decipher;
  assert.ok(outKey instanceof KeyObject && inKey instanceof KeyObject);
  prepareCipherKeys(client);
  assert.equal(Object.values(cipher)[0], outKey);
  for (const other of [{}, { _protocol: {} }, { _protocol: { _cipher: {}, _decipher: undefined } }])
    prepareCipherKeys(other as unknown as Client);
});
