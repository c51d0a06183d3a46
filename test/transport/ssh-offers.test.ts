import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import type { TestContext } from 'node:test';
import ssh2 from 'ssh2';
import type { AuthContext } from 'ssh2';
import { hostKeyFingerprint } from '../../src/transport/ssh/known-hosts.ts';
import { SshAuthentication } from '../../src/transport/ssh/ssh-auth.ts';
import { parsePublicKeyFile } from '../../src/transport/ssh/ssh-key-file.ts';
import { connectSsh } from '../../src/transport/ssh/ssh.ts';
import type { SshOptions } from '../../src/transport/ssh/ssh.ts';
import { startAgent } from '../support/ssh-agent.ts';
import { startHost } from '../support/ssh-host.ts';
import { makeSshKey } from '../support/sshd.ts';

const folder = mkdtempSync(join(tmpdir(), 'sqlsync-offers-'));
const skip = spawnSync('ssh-add', ['-h']).error === undefined ? false : 'ssh-add is missing';
after(() => rmSync(folder, { recursive: true }));

let count = 0;

function makeKey(): string {
  return makeSshKey(join(folder, `key_${count++}`));
}

function publicKeyOf(path: string): Buffer {
  return parsePublicKeyFile(readFileSync(`${path}.pub`, 'latin1')) ?? assert.fail(path);
}

/** The key files whose keys were offered, in order; other offers by their method. */
class Offers {
  readonly seen: string[] = [];
  readonly #keys: readonly string[];

  constructor(keys: readonly string[]) {
    this.#keys = keys;
  }

  note(request: AuthContext): void {
    if (request.method !== 'publickey') return void this.seen.push(request.method);
    if (request.signature !== undefined) return;
    this.seen.push(this.#keys.find((key) => publicKeyOf(key).equals(request.key.data)) ?? request.key.algo);
  }
}

/** Logs in to a host that answers as `decide` does; returns the offers. */
async function offersTo(
  context: TestContext,
  keys: readonly string[],
  options: Partial<SshOptions>,
  decide: (request: AuthContext) => void,
): Promise<string[]> {
  const offers = new Offers(keys);
  const host = await startHost(context, folder, (request) => {
    offers.note(request);
    decide(request);
  });
  const attempt = connectSsh({
    host: '127.0.0.1',
    port: host.port,
    user: 'deploy',
    configFile: 'none',
    knownHostsFiles: [host.knownHostsFile],
    identityFiles: [],
    command: 'true',
    ask: false,
    ...options,
  });
  await attempt.then(
    (transport) => transport.terminate(),
    () => {},
  );
  return offers.seen;
}

const takesKeys = (request: AuthContext): void => request.reject(['publickey']);

describe('the offers to a host', { skip }, () => {
  test('each key is offered once, though it is in the agent and in a file', async (context) => {
    const keys = [makeKey(), makeKey(), makeKey()];
    const agentSocket = await startAgent(context, folder, keys.toReversed());
    const seen = await offersTo(context, keys, { identityFiles: [...keys, ...keys], agentSocket }, takesKeys);
    assert.deepEqual(seen.toSorted(), ['none', ...keys].toSorted());
    assert.equal(seen[0], 'none');
  });

  test('no key is offered to a host that accepts none', async (context) => {
    const [held, named] = [makeKey(), makeKey()];
    const agentSocket = await startAgent(context, folder, [held]);
    const options = { identityFiles: [named], agentSocket };
    const seen = await offersTo(context, [held, named], options, (request) => request.reject(['password']));
    assert.deepEqual(seen, ['none']);
  });

  for (const where of ['agent', 'file'] as const) {
    test(`a host that took a key (of the ${where}) and wants more gets the next method that it names`, async (context) => {
      const [good, other] = [makeKey(), makeKey()];
      const agentSocket = await startAgent(context, folder, where === 'agent' ? [good, other] : [other]);
      const options = {
        identityFiles: where === 'file' ? [good] : [`${good}.pub`],
        agentSocket,
        ask: () => Promise.resolve('secret'),
      };
      const seen = await offersTo(context, [good, other], options, (request) => {
        if (request.method === 'password' && request.password === 'secret') return request.accept();
        if (request.method !== 'publickey') return request.reject(['publickey']);
        if (!request.key.data.equals(publicKeyOf(good))) return request.reject(['publickey']);
        if (request.signature === undefined) return request.accept();
        return request.reject(['password'], true);
      });
      assert.deepEqual(seen, ['none', good, 'password']);
    });
  }

  for (const [name, fileOf] of [
    ['the public half alone', (key: string): string => `${key}.pub`],
    ['a file that is not there, with its public half', (key: string): string => key],
  ] as const) {
    test(`the agent’s key that is named by ${name} is offered, and no other with IdentitiesOnly`, async (context) => {
      const [wanted, other] = [makeKey(), makeKey()];
      const agentSocket = await startAgent(context, folder, [other, wanted]);
      mkdirSync(join(folder, `away_${count}`));
      renameSync(wanted, join(folder, `away_${count++}`, 'key'));
      const auth = await SshAuthentication.plan(ssh2, {
        user: 'deploy',
        target: 'deploy@db1',
        identityFiles: [fileOf(wanted)],
        identitiesOnly: true,
        agentSocket,
        allows: { publicKey: true, password: false, keyboardInteractive: false },
        ask: undefined,
        promptCount: 0,
        unused: [],
      });
      const offered = [await auth.next(null), await auth.next(['publickey'])];
      assert.deepEqual(
        offered.map((offer) => offer !== false && offer.type),
        ['none', 'agent'],
      );
      assert.equal(await auth.next(['publickey']), false);
      const { message } = auth.failure('db1', 'ssh db1');
      assert.ok(message.includes(`tried: agent key ${hostKeyFingerprint(publicKeyOf(wanted))};`), message);
    });
  }

  test("the agent's keys for the default files are offered before its other keys", async (context) => {
    const home = mkdtempSync(join(folder, 'home-'));
    mkdirSync(join(home, '.ssh'));
    const standard = makeSshKey(join(home, '.ssh', 'id_ed25519'));
    const others = [makeKey(), makeKey()];
    const agentSocket = await startAgent(context, folder, [...others, standard]);
    const options = { agentSocket, identityFiles: undefined as never, home };
    const seen = await offersTo(context, [standard, ...others], options, takesKeys);
    assert.deepEqual(seen, ['none', standard, ...others]);
  });
});
