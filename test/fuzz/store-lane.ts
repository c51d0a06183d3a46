import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { crc32 } from 'node:zlib';
import type { Random } from '../../fixtures/random.ts';
import { FrameDecoder } from '../../protocol/decode.ts';
import { message } from '../../protocol/encode.ts';
import type { Message, MessageName } from '../../protocol/messages.ts';
import { serveStore } from '../../src/backup/backends/agent/serve-store.ts';
import { StoreClient, StoreRefused } from '../../src/backup/backends/agent/store-client.ts';
import { STORE_FOLDERS } from '../../src/backup/backends/backend.ts';
import { runFarAgent } from '../../src/sync/agents/far-agent.ts';
import { Connection } from '../../src/sync/link/connection.ts';
import { Restriction } from '../../src/sync/request/restriction.ts';
import { memoryTransportPair } from '../../src/transport/memory.ts';
import type { Transport } from '../../src/transport/transport.ts';
import { detached } from '../support/frames.ts';
import { hello, NONE, OPENING } from './opening.ts';
import { runBetween, runScript } from './sessions.ts';
import type { Attack, Victim } from './sessions.ts';

/** Above the time that counts as a hang. */
const IDLE_TIMEOUT_MS = 60_000;

const REQUESTS: ReadonlySet<MessageName> = new Set([
  'getFile',
  'putFile',
  'filePart',
  'deleteFile',
  'removeLeftovers',
  'digestFile',
  'listFiles',
]);

const sha256 = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex');

/** Every message of a conversation about a store. */
export async function storeMessages(folder: string): Promise<Message[]> {
  const store = join(folder, 'recorded', 'store');
  makeStore(store);
  const corpus: Message[] = [];
  const [near, far] = memoryTransportPair();
  const ended = serving(join(folder, 'recorded'))(far);
  for (const { input } of [near, far]) {
    const decoder = new FrameDecoder(crc32);
    input.on('data', (bytes: Uint8Array) => {
      decoder.push(bytes);
      for (let next = decoder.next(); next !== undefined; next = decoder.next()) corpus.push(detached(next));
    });
  }
  await useStore(near);
  await ended;
  return corpus;
}

/**
 * A hostile peer with a key that may only add to a store asks for anything at all; or a client of a store receives the
 * messages of an honest agent in a mutated form.
 */
export function storeLane(folder: string, corpus: readonly Message[]): Attack {
  const store = join(folder, 'store');
  const before = makeStore(store);
  const requests = corpus.filter(({ type }) => REQUESTS.has(type));
  const open = message('openStore', { path: 'store', idleTimeoutMs: 0, maxTimeMs: 0 });
  return async (random) => {
    const options = {
      mutationRate: random.pick([0.2, 0.6, 1]),
      spared: random.chance(0.9) ? OPENING : NONE,
    };
    const { failure, mutated } = random.chance(0.7)
      ? await runScript(
          serving(folder),
          [hello(), open, ...scriptOf(random, requests, corpus)],
          random,
          options,
        )
      : await runBetween(useStore, serving(folder), random, options);
    assertOnlyAdded(folder, before);
    return { mutated, how: failure?.code ?? 'done' };
  };
}

/** Mostly requests, each put with its parts; and now and then any other message. */
function scriptOf(random: Random, requests: readonly Message[], corpus: readonly Message[]): Message[] {
  return Array.from({ length: random.integer(1, 12) }).flatMap(() => {
    const next = random.pick(random.chance(0.9) ? requests : corpus);
    if (next.type !== 'putFile' || random.chance(0.1)) return [next];
    const data = Uint8Array.from({ length: random.integer(0, 300) }, () => random.integer(0, 255));
    const name = random.chance(0.5) ? `packs/${sha256(data)}` : next.name;
    const at = random.integer(0, data.length);
    return [
      { ...next, name },
      message('filePart', { id: next.id, isLast: false, data: data.subarray(0, at) }),
      message('filePart', { id: next.id, isLast: true, data: data.subarray(at) }),
    ];
  });
}

function serving(folder: string): Victim {
  const restriction = new Restriction({ folder, access: 'add', create: false });
  return (transport) => runFarAgent(transport, { idleTimeoutMs: IDLE_TIMEOUT_MS, restriction, serveStore });
}

/** Uses the store of the agent at the other end in every way. */
async function useStore(transport: Transport): Promise<void> {
  const connection = new Connection(transport, 'openingStore', { idleTimeoutMs: IDLE_TIMEOUT_MS });
  const client = await StoreClient.open(connection, 'store');
  const bytes = Buffer.from('a new file');
  const outcomes = await Promise.allSettled([
    client.get('config'),
    ...STORE_FOLDERS.map((name) => client.list(name)),
    client.get(`packs/${'0'.repeat(64)}`, { offset: 1, length: 5 }),
    client.put(`packs/${sha256(bytes)}`, [bytes.subarray(0, 4), bytes.subarray(4)]),
    client.digest(`packs/${sha256(bytes)}`),
    client.get(`packs/${sha256(bytes)}`, { offset: 1, length: 5 }),
    client.delete('config'),
    client.removeLeftovers(0),
    client.put('config', [bytes], true),
  ]);
  client.close();
  for (const outcome of outcomes)
    if (outcome.status === 'rejected' && !(outcome.reason instanceof StoreRefused)) throw outcome.reason;
}

/** Returns its files. */
function makeStore(store: string): Map<string, Buffer> {
  for (const name of STORE_FOLDERS) {
    const bytes = Buffer.from(`a file in ${name}`);
    mkdirSync(join(store, name), { recursive: true });
    writeFileSync(join(store, name, sha256(bytes)), bytes);
  }
  writeFileSync(join(store, 'config'), '{"id":"0a"}');
  writeFileSync(join(store, '..', 'beside'), 'beside');
  return filesOf(join(store, '..'));
}

function filesOf(folder: string): Map<string, Buffer> {
  const entries = readdirSync(folder, { recursive: true, withFileTypes: true, encoding: 'utf8' });
  const paths = entries.filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath, entry.name));
  return new Map(paths.map((path) => [path, readFileSync(path)]));
}

/** What is there besides is named by its bytes, and goes. */
function assertOnlyAdded(folder: string, before: ReadonlyMap<string, Buffer>): void {
  const now = filesOf(folder);
  for (const [path, bytes] of before) assert.ok(now.get(path)?.equals(bytes), `${path} was changed`);
  for (const [path, bytes] of now) {
    if (before.has(path)) continue;
    assert.ok(path.endsWith(sha256(bytes)), `${path} was added`);
    rmSync(path);
  }
}
