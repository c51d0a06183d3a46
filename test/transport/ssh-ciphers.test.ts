// oxlint-disable no-underscore-dangle -- members of ssh2's objects
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { Duplex } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import { after, test } from 'node:test';
import type { Client } from 'ssh2';
import { connectSsh } from '../../src/transport/ssh/ssh.ts';
import { prepareCiphers } from '../../src/transport/ssh/ssh-ciphers.ts';
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

test('the ciphers of a client of another form are left alone', () => {
  const socket = new Duplex();
  for (const other of [{}, { _protocol: {} }, { _protocol: { _cipher: {}, _decipher: undefined } }]) {
    const before = structuredClone(other);
    prepareCiphers(other as unknown as Client, socket);
    assert.deepEqual(other, before);
  }
  const key = randomBytes(16);
  const stream = { _decipherKey: key, _decipherIV: randomBytes(16), _decipherSSLName: 'aes-128-ctr' };
  const client = { _protocol: { _decipher: stream } };
  prepareCiphers(client as unknown as Client, socket);
  assert.equal(client._protocol._decipher, stream);
});
