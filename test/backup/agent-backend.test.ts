import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, renameSync, utimesSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { PassThrough } from 'node:stream';
import { test } from 'node:test';
import { message } from '../../protocol/encode.ts';
import { AgentFiles } from '../../src/backup/backends/agent/agent-files.ts';
import { runFarAgent } from '../../src/sync/agents/far-agent.ts';
import { Connection } from '../../src/sync/link/connection.ts';
import { memoryTransportPair } from '../../src/transport/memory.ts';
import type { Transport } from '../../src/transport/transport.ts';
import { tempDir } from '../support/compare.ts';
import { agentFiles } from '../support/store-agent.ts';
import { backendSuite } from './backend-suite.ts';

const NAME = `packs/${'ab'.repeat(32)}`;

backendSuite('agent', (t) => {
  const folder = join(tempDir(t), 'a', 'store');
  return Promise.resolve(() => agentFiles(t, folder));
});

test('a file of several parts comes as it was put, and its digest is that of its bytes', async (t) => {
  const files = agentFiles(t, join(tempDir(t), 'store'));
  const bytes = Buffer.alloc(5 * 1024 * 1024 + 3, 'several parts of it');
  await files.put(NAME, [bytes.subarray(0, 10), bytes.subarray(10, 10), bytes.subarray(10)]);
  assert.ok(bytes.equals(await files.get(NAME)));
  const range = { offset: 1024 * 1024 - 1, length: 2 * 1024 * 1024 + 2 };
  assert.ok(bytes.subarray(range.offset, range.offset + range.length).equals(await files.get(NAME, range)));
  assert.deepEqual(await files.digest(NAME), {
    hash: createHash('sha256').update(bytes).digest('hex'),
    bytes: bytes.length,
  });
  await assert.rejects(files.digest(`packs/${'cd'.repeat(32)}`), { code: 'STORE_FILE_MISSING' });
});

test('a list of many files comes whole, without unfinished files', async (t) => {
  const folder = tempDir(t);
  mkdirSync(join(folder, 'packs'));
  const names = Array.from({ length: 4500 }, (_, i) => i.toString(16).padStart(8, '0'));
  for (const name of names) writeFileSync(join(folder, 'packs', name), name.slice(0, 3));
  writeFileSync(join(folder, 'packs', '.tmp-1'), 'half');
  const listed = await agentFiles(t, folder).list('packs');
  assert.deepEqual(
    listed.map(({ name, bytes }) => `${name} ${bytes}`).toSorted(),
    names.map((name) => `${name} 3`).toSorted(),
  );
});

test('leftovers go by the clock of the host of the store', async (t) => {
  const folder = tempDir(t);
  mkdirSync(join(folder, 'packs'));
  for (const name of ['.tmp-old', '.tmp-young']) writeFileSync(join(folder, 'packs', name), 'half');
  utimesSync(join(folder, 'packs', '.tmp-old'), 1, 1);
  await agentFiles(t, folder).removeLeftovers(1_000_000);
  assert.deepEqual(readdirSync(join(folder, 'packs')), ['.tmp-young']);
});

test('an operation begins again on a new connection when it loses its own, and answers that were lost do no harm', async (t) => {
  const folder = tempDir(t);
  const ends: Transport[] = [];
  const files = agentFiles(t, folder, { onConnect: (near) => void ends.push(near) });
  await files.put('config', [Buffer.from('a store')]);
  const bytes = Buffer.alloc(4 * 1024 * 1024, 3);
  const putting = files.put(NAME, [bytes]);
  ends[0]?.terminate();
  assert.equal(await putting, 'created');
  assert.ok(bytes.equals(await files.get(NAME)));
  assert.equal(ends.length, 2);
});

test('the config counts as made by this process if only the answer to its put was lost', async (t) => {
  const folder = tempDir(t);
  let connections = 0;
  const files = agentFiles(t, folder, {
    onConnect: (near) => {
      if (++connections > 1) return near;
      // What the agent says after it has put the config is lost.
      const input = new PassThrough();
      near.input.on('data', (bytes: Uint8Array) =>
        existsSync(join(folder, 'config')) ? near.terminate() : input.write(bytes),
      );
      near.input.on('close', () => input.end());
      return { ...near, input };
    },
  });
  assert.equal(await files.put('config', [Buffer.from('mine')]), 'created');
  assert.equal(connections, 2);
  assert.equal(await agentFiles(t, folder).put('config', [Buffer.from('other')]), 'exists');
});

test('nothing is put where another store lies after the connection was made again', async (t) => {
  const folder = tempDir(t);
  const files = agentFiles(t, folder);
  const config = (id: string): Buffer => Buffer.from(JSON.stringify({ id }));
  await files.put('config', [config('first')]);
  files.close();
  writeFileSync(join(folder, 'config'), config('second'));
  await assert.rejects(files.put(NAME, [Buffer.from('x')]), {
    code: 'STORE_UNAVAILABLE',
    message: /another store lies there now: second instead of first/,
  });
  assert.equal(existsSync(join(folder, 'packs')), false);
});

test('a store that went away is not made again, and its files do not count as missing', async (t) => {
  const folder = join(tempDir(t), 'store');
  const files = agentFiles(t, folder);
  const reader = agentFiles(t, folder, { wasThere: true });
  await files.put('config', [Buffer.from('a store')]);
  await files.put(NAME, [Buffer.from('x')]);
  renameSync(folder, `${folder}-away`);
  for (const isConnected of [true, false]) {
    for (const work of [
      () => files.put('packs/01', [Buffer.from('y')]),
      () => files.list('packs'),
      () => files.get(NAME),
      () => reader.get(NAME),
    ])
      await assert.rejects(work(), { code: 'STORE_UNAVAILABLE' });
    assert.equal(existsSync(folder), false, String(isConnected));
    files.close();
  }
});

test('an older sqlsync on the host of the store is named', async (t) => {
  const connect = (): Promise<Connection> => {
    const [near, far] = memoryTransportPair();
    void runFarAgent(far, { idleTimeoutMs: 0 }).catch(() => {});
    return Promise.resolve(new Connection(near, 'openingStore', { idleTimeoutMs: 0 }));
  };
  const files = new AgentFiles({ address: 'vault:store', path: 'store', connect });
  t.after(() => files.close());
  await assert.rejects(files.get('config'), {
    code: 'STORE_UNAVAILABLE',
    message: /vault:store: The sqlsync there is older, and serves no stores/,
    hint: /setup --install HOST.*sftp:HOST:PATH/,
  });
});

/** An agent that answers each request as it likes; the request that it was sent is named by `id`. */
function lyingFiles(answer: (connection: Connection, id: number, name: string) => void): AgentFiles {
  const connect = (): Promise<Connection> => {
    const [near, far] = memoryTransportPair();
    const connection = new Connection(far, 'unassigned', { idleTimeoutMs: 0 });
    void (async () => {
      await connection.receiveOnly('openStore');
      connection.state = 'servingStore';
      connection.send(message('storeOpened', { isThere: true, nowMs: 0 }));
      for (;;) {
        const request = await connection.receive();
        if (request.type === 'getFile') answer(connection, request.id, request.name);
        else if (request.type === 'listFiles') answer(connection, request.id, request.folder);
      }
    })().catch(() => {});
    return Promise.resolve(new Connection(near, 'openingStore', { idleTimeoutMs: 0 }));
  };
  return new AgentFiles({ address: 'liar:store', path: 'store', connect });
}

const part = (id: number, bytes: number, isLast: boolean) =>
  message('filePart', { id, isLast, data: new Uint8Array(bytes) });

for (const [what, answer] of [
  ['more bytes than were asked for', (far, id) => far.send(part(id, 11, true))],
  ['an answer to another request', (far, id) => far.send(part(id + 1, 1, true))],
  ['an answer of another kind', (far, id) => far.send(message('fileDone', { id, created: true }))],
] as const satisfies readonly (readonly [string, (far: Connection, id: number) => void])[]) {
  test(`a host that sends ${what} is not believed`, async (t) => {
    const files = lyingFiles(answer);
    t.after(() => files.close());
    await assert.rejects(files.get(NAME, { offset: 0, length: 10 }), {
      code: 'STORE_UNAVAILABLE',
      message: /The other side sent/,
    });
  });
}

test('names that lead out of a folder, and lists with gaps, are not taken from a host', async (t) => {
  const list = (names: string[], sizes: number[]) => (far: Connection, id: number) =>
    far.send(message('filesListed', { id, names, sizes, timesMs: sizes, nowMs: 0, isLast: true }));
  const escaping = lyingFiles(list(['../config', 'a/b', '.tmp-1', '', 'ok'], [1, 2, 3, 4, 5]));
  t.after(() => escaping.close());
  assert.deepEqual(
    (await escaping.list('packs')).map(({ name }) => name),
    ['ok'],
  );
  const gaps = lyingFiles(list(['a', 'b'], [1]));
  t.after(() => gaps.close());
  await assert.rejects(gaps.list('packs'), { code: 'STORE_UNAVAILABLE', message: /a list with gaps/ });
});
