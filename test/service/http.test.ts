import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { request } from 'node:http';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { describe, test } from 'node:test';
import { PAGE_TARGETS, renderPage } from '../../src/service/http/page.ts';
import { renderMetrics } from '../../src/service/http/prometheus.ts';
import { parseListen, parseToken } from '../../src/service/http/server.ts';
import type { Level, Status } from '../../src/service/state/judge.ts';
import { assertRefused, summaryOf } from '../cli/command.ts';
import type { Command } from '../cli/command.ts';
import { ServiceHere, eventually, events, untilEvents } from './running-service.ts';
import { NOW, statusOf, targetOf } from './some-status.ts';

const HOSTILE = `<img src=x onerror=alert(1)>"' & </summary>`;

const NO_QUERY = new URLSearchParams();

describe('the page', () => {
  test('names of databases are text in it, however hostile', () => {
    const page = renderPage(
      {
        ...statusOf([
          targetOf({ origin: HOSTILE, target: HOSTILE, why: HOSTILE, snapshot: HOSTILE, kind: 'store' }),
        ]),
        config: HOSTILE,
        troubles: [HOSTILE],
        configFailure: { atMs: 1, code: 'CONFIG_INVALID', message: HOSTILE },
      },
      NO_QUERY,
    );
    assert.doesNotMatch(page, /<img|onerror=alert\(1\)>"/);
    assert.equal(page.split('&#60;img src=x onerror=alert(1)&#62;').length > 5, true);
    assert.equal(page.split('</summary>').length, 2);
  });

  test('it asks for nothing but its style, and has no script', () => {
    const page = renderPage(statusOf([targetOf({})]), NO_QUERY);
    const asked = [...page.matchAll(/(?:src|href)="([^"]*)"/g)].map(([, place]) => place);
    assert.deepEqual(asked, ['/style.css', '/', '/?level=fine', '/?still', '/target?id=0123456789abcdef']);
    assert.doesNotMatch(page, /<script|style=|\son\w+=/);
  });

  test('the worst comes first, and a thousand targets come in pages', () => {
    const levels: Level[] = ['fine', 'late', 'failing'];
    const targets = Array.from({ length: 1000 }, (_, at) =>
      targetOf({ origin: `/db${at}`, level: levels[at % 3] ?? 'fine' }),
    );
    const lines = (query: string): string[] =>
      [
        ...renderPage(statusOf(targets, 'failing'), new URLSearchParams(query)).matchAll(
          /<strong><bdi>(.*?)<\/bdi><\/strong>/g,
        ),
      ].map(([, name]) => name as string);
    assert.equal(lines('').length, PAGE_TARGETS);
    assert.ok(
      lines('').every((name) => Number(name.slice(3)) % 3 === 2),
      'failing first',
    );
    const all = Array.from({ length: 10 }, (_, at) => lines(`page=${at + 1}`)).flat();
    assert.equal(new Set(all).size, 1000);
    assert.deepEqual(lines('page=99'), lines('page=10'));
    assert.deepEqual(lines('page=x&level=none'), lines(''));
    assert.equal(new Set([1, 2, 3, 4].flatMap((page) => lines(`level=late&page=${page}`))).size, 333);
  });

  test('it loads itself again, but not while somebody reads it', () => {
    const refresh = /http-equiv="refresh"/;
    assert.match(renderPage(statusOf([]), NO_QUERY), refresh);
    assert.doesNotMatch(renderPage(statusOf([]), new URLSearchParams('still')), refresh);
  });

  test('it has the command that restores a copy, quoted for a shell', () => {
    const page = renderPage(
      statusOf([targetOf({ kind: 'store', target: "/s'x", snapshot: 'abcd' }), targetOf({})]),
      NO_QUERY,
    );
    assert.match(page, /<code>sqlsync restore &#39;\/s&#39;\\&#39;&#39;x#abcd&#39; restored\.db<\/code>/);
    assert.match(page, /<code>sqlsync &#39;\/copies\/a\.db&#39; restored\.db<\/code>/);
  });
});

test('metrics have a line for each figure that is known, with escaped labels', () => {
  const lines = renderMetrics(statusOf([targetOf({ origin: 'a"\\b', level: 'late' })], 'late')).split('\n');
  assert.ok(lines.includes('sqlsync_service_status 1'));
  const labels = '{origin="a\\"\\\\b",target="/copies/a.db",kind="replica",id="0123456789abcdef"}';
  assert.ok(lines.includes(`sqlsync_target_status${labels} 1`));
  assert.ok(lines.includes(`sqlsync_target_lag_seconds${labels} 60`));
  assert.ok(!lines.some((line) => line.startsWith('sqlsync_target_proven_timestamp_seconds{')));
  for (const line of lines.filter(Boolean)) assert.match(line, /^# (?:HELP|TYPE) |^\w+(?:\{.*\})? [\d.]+$/);
});

test('the dashboard for Grafana has a panel for each metric of the service, and no other', () => {
  const status = statusOf([targetOf({ provenAtMs: NOW })]);
  const metrics = [...renderMetrics(status).matchAll(/^# TYPE (\w+) gauge$/gm)].map(([, name]) => name);
  const file = join(import.meta.dirname, '../../docs/grafana-dashboard.json');
  const { panels } = JSON.parse(readFileSync(file, 'utf8')) as {
    panels: { id: number; title: string; targets: { expr: string }[] }[];
  };
  const named = panels.flatMap(({ targets }) =>
    targets.flatMap(({ expr }) => [...expr.matchAll(/sqlsync_\w+/g)].map(([name]) => name)),
  );
  assert.deepEqual(new Set(named), new Set(metrics));
  assert.equal(new Set(panels.map(({ id }) => id)).size, panels.length);
});

test('an address and a token are read, and others refused', () => {
  assert.deepEqual(parseListen('127.0.0.1:9247'), { host: '127.0.0.1', port: 9247 });
  assert.deepEqual(parseListen('[::1]:0'), { host: '::1', port: 0 });
  for (const text of ['9247', ':9247', '127.0.0.1', '127.0.0.1:99999', '::1:1'])
    assert.throws(() => parseListen(text), { code: 'USAGE' }, text);
  assert.equal(parseToken('0123456789abcdef\n'), '0123456789abcdef');
  for (const text of ['', 'short', '0123456789 abcdef', '0123456789\nabcdef'])
    assert.throws(() => parseToken(text), { code: 'USAGE' }, text);
});

interface Answer {
  readonly status: number | undefined;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  readonly body: string;
}

/** fetch would not let a test choose the Host header. */
function get(
  base: string,
  path: string,
  headers: Record<string, string> = {},
  method = 'GET',
): Promise<Answer> {
  const { hostname, port } = new URL(base);
  return new Promise((resolve, reject) => {
    const asked = request({ hostname, port, path, method, headers, agent: false }, (response) => {
      let body = '';
      response.setEncoding('utf8').on('data', (text: string) => (body += text));
      response.on('end', () => resolve({ status: response.statusCode, headers: response.headers, body }));
    });
    asked.on('error', reject);
    asked.end();
  });
}

describe('the service over HTTP', () => {
  async function listening(
    here: ServiceHere,
    ...words: string[]
  ): Promise<{ service: Command; base: string }> {
    here.database('<b>.db');
    here.configure("databases: [{ path: '<b>.db', schedule: 1h, targets: [{ replica: copies/a.db }] }]\n");
    const service = await here.start({}, '--listen', '127.0.0.1:0', ...words);
    await untilEvents(service, 'copied', 'copies/a.db');
    return { service, base: events(service, 'listening')[0]?.['url'] as string };
  }

  test('it serves a page, metrics, health and the status, to whom it knows by name', async (t) => {
    const here = new ServiceHere(t);
    const { service, base } = await listening(here);
    const page = await get(base, '/');
    assert.equal(page.status, 200);
    assert.match(page.body, /&#60;b&#62;\.db/);
    assert.match(String(page.headers['content-security-policy']), /default-src 'none'; style-src 'self'/);
    assert.equal((await get(base, '/style.css')).headers['content-type'], 'text/css; charset=utf-8');
    assert.deepEqual((await get(base, '/healthz')).body, 'ok\n');
    assert.match((await get(base, '/metrics')).body, /^sqlsync_service_status 0$/m);
    assert.equal((JSON.parse((await get(base, '/api/status')).body) as Status).targets[0]?.level, 'fine');
    for (const host of ['evil.example', 'evil.example:80', '127.0.0.1.evil.example', '10.0.0.1'])
      assert.equal((await get(base, '/', { host })).status, 421, host);
    for (const host of ['localhost', 'LOCALHOST:1', '[::1]:80', '127.0.0.1'])
      assert.equal((await get(base, '/', { host })).status, 200, host);
    assert.equal((await get(base, '/', {}, 'POST')).status, 405);
    assert.equal((await get(base, '//')).status, 400);
    assert.equal((await get(base, '/../../etc/passwd')).status, 404);
    assert.equal((await get(base, '/', {}, 'HEAD')).body, '');
    await here.stop(service);
  });

  test('the page of a target shows its history, growth and map, once they are read', async (t) => {
    const here = new ServiceHere(t);
    const path = here.database('a.db');
    const setMode = (mode: string): void => {
      const database = new DatabaseSync(path);
      database.exec(`PRAGMA journal_mode = ${mode}`);
      database.close();
    };
    setMode('DELETE');
    const store = 'the-store';
    await summaryOf(['init', store], { cwd: here.folder });
    here.configure(
      `databases: [{ path: a.db, schedule: 1h, targets: [{ store: ${store} }, { replica: copies/a.db }] }]\n`,
    );
    const service = await here.start({}, '--listen', '127.0.0.1:0');
    const base = events(service, 'listening')[0]?.['url'] as string;
    for (const place of [store, 'copies/a.db']) await untilEvents(service, 'copied', place);
    const { targets } = JSON.parse((await get(base, '/api/status')).body) as Status;
    const pageOf = async (place: string): Promise<string> => {
      const id = targets.find(({ target }) => target.endsWith(place))?.id;
      let page = '';
      await eventually(async () => {
        page = (await get(base, `/target?id=${id}`)).body;
        return !page.includes('http-equiv="refresh"');
      }, `the report of ${place}`);
      return page;
    };
    const ofStore = await pageOf(store);
    assert.match(ofStore, /<h2>Snapshots<\/h2>/);
    assert.match(ofStore, /<h2>Growth by table and index<\/h2>/);
    assert.match(ofStore, /sqlsync restore &#39;.*the-store#[0-9a-f]{64}&#39; restored\.db/);
    assert.match(await pageOf('copies/a.db'), /not in WAL mode/);
    setMode('WAL');
    assert.match(await pageOf('copies/a.db'), /<h2>Pages that changed<\/h2>/);
    assert.equal((await get(base, '/target?id=none')).status, 404);
    await here.stop(service);
  });

  test('with a token it tells only those who send it, and anybody that it lives', async (t) => {
    const here = new ServiceHere(t);
    const token = 'hunter2-hunter2-hunter2';
    writeFileSync(here.path('token'), `${token}\n`);
    const { service, base } = await listening(here, '--token-file', 'token');
    const basic = (text: string): string => `Basic ${Buffer.from(text).toString('base64')}`;
    for (const authorization of ['', 'Bearer x', basic('me:wrong'), `Digest ${token}`]) {
      const { status, body } = await get(base, '/', { authorization });
      assert.equal(status, 401, authorization);
      assert.doesNotMatch(body, /\.db/);
    }
    for (const authorization of [`Bearer ${token}`, basic(`me:${token}`)])
      assert.equal(
        (await get(base, '/', { authorization, host: 'backup.example' })).status,
        200,
        authorization,
      );
    assert.equal((await get(base, '/healthz')).status, 200);
    const { stdout, stderr } = await here.stop(service);
    assert.doesNotMatch(stdout + stderr, /hunter2/);
  });

  test('an address that other hosts reach needs a token', async (t) => {
    const here = new ServiceHere(t);
    here.database('a.db');
    here.configure('databases: [{ path: a.db, schedule: 1h, targets: [{ replica: copies/a.db }] }]\n');
    const expected = { code: 'USAGE', status: 2, says: /can be reached from other hosts/ } as const;
    await assertRefused(['run', '--listen', '0.0.0.0:0'], expected, { cwd: here.folder });
    const alone = { code: 'USAGE', status: 2, says: /--token-file is for --listen/ } as const;
    await assertRefused(['run', '--token-file', 'x'], alone, { cwd: here.folder });
  });
});
