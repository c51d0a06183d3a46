/**
 * An application that embeds sqlsync: an HTTP server that writes to its database at full rate through the pools,
 * and copies that database to a replica every second while it does.
 *
 *     node test/e2e/self-sync-server.ts app.db replica.db [PORT]
 *
 *     POST /events         body: any text      201 {"id":1}
 *     GET  /events/1                           200 {"id":1,"text":"…"}
 *     GET  /status                             200 {"events":1,"syncs":1,"failures":0,"pools":{…}}
 *
 * SIGTERM or SIGINT: it answers what has come, closes the database, and syncs a last time.
 */
import { createServer } from 'node:http';
import type { IncomingMessage } from 'node:http';
import type { AddressInfo } from 'node:net';
import { text } from 'node:stream/consumers';
import { setTimeout as delay } from 'node:timers/promises';
import { openDatabase, sync } from '../../src/index.ts';
import type { ReadConnection, WriteTransaction } from '../../src/index.ts';

const SYNC_INTERVAL_MS = 1000;

const [origin = 'app.db', replica = 'replica.db', port = '0'] = process.argv.slice(2);

const db = await openDatabase(origin);
await db.write.exec(`
  CREATE TABLE IF NOT EXISTS events (id INTEGER PRIMARY KEY, text TEXT NOT NULL);
  CREATE TABLE IF NOT EXISTS totals (id INTEGER PRIMARY KEY CHECK (id = 1), events INTEGER NOT NULL);
  INSERT OR IGNORE INTO totals VALUES (1, 0)`);

interface Event {
  readonly id: number;
  readonly text: string;
}

/** Both statements or neither; the types say that this needs a transaction. */
async function addEvent(tx: WriteTransaction, body: string): Promise<{ id: number }> {
  const { lastInsertRowid } = await tx.run('INSERT INTO events (text) VALUES (?)', [body]);
  await tx.run('UPDATE totals SET events = events + 1');
  return { id: Number(lastInsertRowid) };
}

/** This only reads: it takes `db.read`, a snapshot or a transaction, and could not write. */
function findEvent(r: ReadConnection, id: number): Promise<Event | undefined> {
  return r.get<Event>('SELECT id, text FROM events WHERE id = ?', [id]);
}

const syncs = { done: 0, failed: 0 };

/** The server reports failures, and the next round tries again; the replica is whole in any case. */
async function syncNow(signal?: AbortSignal): Promise<void> {
  try {
    await sync({ origin, replica, signal });
    syncs.done++;
  } catch (error) {
    if (signal?.aborted === true) return;
    syncs.failed++;
    process.stderr.write(`sync: ${String(error)}\n`);
  }
}

async function keepSyncing(signal: AbortSignal): Promise<void> {
  while (!signal.aborted) {
    await syncNow(signal);
    await delay(SYNC_INTERVAL_MS, undefined, { signal }).catch(() => {});
  }
}

async function answer(request: IncomingMessage): Promise<[status: number, body: unknown]> {
  const { method, url = '/' } = request;
  if (method === 'POST' && url === '/events') {
    const body = await text(request);
    return [201, await db.write.transaction((tx) => addEvent(tx, body), { label: 'add event' })];
  }
  if (url === '/status') {
    const totals = await db.read.get<{ events: number }>('SELECT events FROM totals');
    return [200, { ...totals, syncs: syncs.done, failures: syncs.failed, pools: db.stats() }];
  }
  const [, id] = /^\/events\/(\d+)$/.exec(url) ?? [];
  const event = id === undefined ? undefined : await findEvent(db.read, Number(id));
  return event === undefined ? [404, { error: 'not found' }] : [200, event];
}

const server = createServer((request, response) => {
  answer(request)
    .catch((error: unknown): [number, unknown] => [500, { error: String(error) }])
    .then(([status, body]) => response.writeHead(status).end(JSON.stringify(body)))
    .catch(() => response.destroy());
});

const stopping = new AbortController();
const syncing = keepSyncing(stopping.signal);

async function shutDown(): Promise<void> {
  stopping.abort();
  await new Promise((resolve) => server.close(resolve));
  await syncing;
  await db.close();
  await syncNow();
}

for (const signal of ['SIGTERM', 'SIGINT'] as const) process.once(signal, () => void shutDown());
server.listen(Number(port), '127.0.0.1', () => {
  process.stdout.write(`listening on ${(server.address() as AddressInfo).port}\n`);
});
