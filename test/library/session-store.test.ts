import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { createRequire } from 'node:module';
import type { AddressInfo } from 'node:net';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import type { TestContext } from 'node:test';
import { pathToFileURL } from 'node:url';
import { openDatabase } from '../../src/index.ts';
import type { Database } from '../../src/index.ts';
import { tempDir } from '../support/compare.ts';

const ROOT = dirname(dirname(import.meta.dirname));

interface Store {
  removeExpired(): Promise<void>;
}
interface StoreClass {
  open(db: Database, options?: { maxAgeMs?: number }): Promise<Store>;
}
interface Session {
  user?: string;
  destroy(callback: (error?: Error) => void): void;
}
type Middleware = (
  request: IncomingMessage & { session: Session },
  response: ServerResponse,
  next: (error?: Error) => void,
) => void;

/** The example of the manual, as an application has it. */
async function storeOfTheManual(t: TestContext): Promise<StoreClass> {
  const [, code = ''] =
    /^```js\n(import session from 'express-session'.*?)^```$/ms.exec(
      readFileSync(join(ROOT, 'docs', 'library.md'), 'utf8'),
    ) ?? [];
  const folder = tempDir(t);
  mkdirSync(join(folder, 'node_modules'));
  const name = join('node_modules', 'express-session');
  symlinkSync(join(ROOT, name), join(folder, name));
  writeFileSync(join(folder, 'store.mjs'), code);
  const { SessionStore } = (await import(pathToFileURL(join(folder, 'store.mjs')).href)) as {
    SessionStore: StoreClass;
  };
  return SessionStore;
}

/** An application: /login, /me, /logout. Returns a way to request a page with a cookie. */
async function serve(
  t: TestContext,
  store: Store,
  cookie: { maxAge?: number } = {},
): Promise<(page: string, cookie?: string) => Promise<{ text: string; cookie: string | undefined }>> {
  const session = createRequire(import.meta.url)('express-session') as (options: object) => Middleware;
  const middleware = session({ store, secret: 'test', resave: false, saveUninitialized: false, cookie });
  const server = createServer((request, response) => {
    const asked = request as Parameters<Middleware>[0];
    middleware(asked, response, (error) => {
      if (error !== undefined) return void response.writeHead(500).end(String(error));
      if (request.url === '/login') asked.session.user = 'Ada';
      if (request.url !== '/logout') return void response.end(asked.session.user ?? 'nobody');
      asked.session.destroy(() => response.end('bye'));
    });
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.after(() => server.close());
  const { port } = server.address() as AddressInfo;
  return async (page, known) => {
    const headers = { connection: 'close', ...(known === undefined ? {} : { cookie: known }) };
    const response = await fetch(`http://127.0.0.1:${port}${page}`, { headers });
    return {
      text: await response.text(),
      cookie: response.headers.get('set-cookie')?.split(';')[0],
    };
  };
}

test('the session store of the manual keeps the sessions of express-session', async (t) => {
  const path = join(tempDir(t), 'app.db');
  let db = await openDatabase(path);
  const SessionStore = await storeOfTheManual(t);
  const request = await serve(t, await SessionStore.open(db));
  assert.equal((await request('/me')).text, 'nobody');
  const { text, cookie } = await request('/login');
  assert.equal(text, 'Ada');
  const many = await Promise.all(Array.from({ length: 50 }, () => request('/me', cookie)));
  assert.ok(many.every((answer) => answer.text === 'Ada'));
  assert.equal((await request('/me', 'connect.sid=s%3Aforged.forged')).text, 'nobody');
  await db.close();
  // The application starts again.
  db = await openDatabase(path);
  t.after(() => db.close());
  const again = await serve(t, await SessionStore.open(db));
  assert.equal((await again('/me', cookie)).text, 'Ada');
  assert.equal((await again('/logout', cookie)).text, 'bye');
  assert.equal((await again('/me', cookie)).text, 'nobody');
  assert.deepEqual(await db.read.all('SELECT * FROM session'), []);
});

test('the session store of the manual knows no session that is over, and removes it', async (t) => {
  await using db = await openDatabase(join(tempDir(t), 'app.db'));
  const SessionStore = await storeOfTheManual(t);
  const store = await SessionStore.open(db);
  const request = await serve(t, store, { maxAge: 3_600_000 });
  const { cookie } = await request('/login');
  assert.equal((await request('/me', cookie)).text, 'Ada');
  await store.removeExpired();
  assert.equal((await db.read.all('SELECT sid FROM session')).length, 1);
  await db.write.run('UPDATE session SET until = ?', [Date.now() - 1]);
  assert.equal((await request('/me', cookie)).text, 'nobody');
  await store.removeExpired();
  assert.deepEqual(await db.read.all('SELECT sid FROM session'), []);
});
