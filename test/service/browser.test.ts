import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import type { Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { after, before, describe, test } from 'node:test';
import { pathToFileURL } from 'node:url';
import type { Browser, Page } from 'playwright-core';
import { DirectoryBackend } from '../../src/backup/backends/directory-backend.ts';
import { reportDatabase } from '../../src/report/collect/store-report.ts';
import { renderReport } from '../../src/report/document.ts';
import type { DatabaseReport, ReportAnswer } from '../../src/report/report.ts';
import { PAGE_TARGETS } from '../../src/service/http/page.ts';
import { serveHttp } from '../../src/service/http/server.ts';
import { withoutSecrets } from '../../src/service/state/state.ts';
import type { Level } from '../../src/service/state/judge.ts';
import { backupHere, storeHere } from '../backup/store-here.ts';
import { LIMIT_MS, startBrowser } from '../support/browser.ts';
import '../support/environment.ts';
import { HOSTILE_NAMES, IN_PAGE, look } from './browser-looks.ts';
import { statusOf, targetOf } from './some-status.ts';

/** A folder for pictures of all pages, to look at. */
const SCREENSHOTS = process.env['SQLSYNC_TEST_SCREENSHOTS'];

const TARGETS = 1000;
const WIDTHS = [1280, 390];
const SCHEMES = ['light', 'dark'] as const;

const started = await startBrowser();

describe('the pages in a browser', { skip: typeof started === 'string' && started }, () => {
  let folder = '';
  let file: string;
  const browser = started as Browser;
  let server: Server;
  let base: string;
  let database: DatabaseReport;

  before(async () => {
    folder = mkdtempSync(join(tmpdir(), 'sqlsync-browser-'));
    file = join(folder, 'report.html');
    database = await reportOf(folder);
    const databases = [database, { ...database, name: HOSTILE_NAMES[0] ?? '' }];
    writeFileSync(file, renderReport({ title: HOSTILE_NAMES[1] ?? '', madeAtMs: 1, databases }));
    const shown = {
      status: () => statusOf(targetsOf(), 'failing'),
      report: (): ReportAnswer => ({ is: 'ready', database }),
    };
    server = await serveHttp({ host: '127.0.0.1', port: 0 }, undefined, shown, () => {});
    base = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  });

  after(async () => {
    await browser.close();
    server?.closeAllConnections();
    server?.close();
    rmSync(folder, { recursive: true, force: true });
  });

  async function newPage(): Promise<Page> {
    const page = await browser.newPage();
    page.setDefaultTimeout(LIMIT_MS);
    await page.addInitScript({ path: IN_PAGE });
    return page;
  }

  /** Runs `work` with the page at this address; nothing may be requested but from there, nothing refused or thrown. */
  async function withPage(url: string, work: (page: Page) => Promise<void>): Promise<void> {
    const page = await newPage();
    const requested: string[] = [];
    const faults: string[] = [];
    page.on('request', (request) => requested.push(request.url()));
    page.on('console', (message) => faults.push(message.text()));
    page.on('pageerror', (error) => faults.push(error.message));
    page.on('dialog', (dialog) => {
      faults.push(dialog.message());
      void dialog.dismiss();
    });
    try {
      await page.goto(url);
      await work(page);
      assert.equal(await look(page, 'isHacked'), false);
      assert.deepEqual(faults, []);
      assert.deepEqual(
        requested.filter((each) => !each.startsWith(`${base}/`) && each !== url),
        [],
      );
    } finally {
      await page.close();
    }
  }

  /** The pages, with all that can be opened on them. */
  const views: readonly (readonly [name: string, url: () => string])[] = [
    ['list', () => `${base}/?still`],
    ['target', () => `${base}/target?id=${idOf(0)}`],
    ['report', () => pathToFileURL(file).href],
  ];

  for (const [name, url] of views)
    test(`the page "${name}" can be read in light and dark, on a desk and a phone, and asks for nothing else`, async () => {
      await withPage(url(), async (page) => {
        for (const colorScheme of SCHEMES)
          for (const width of WIDTHS) {
            const where = `${name}-${colorScheme}-${width}`;
            await page.emulateMedia({ colorScheme });
            await page.setViewportSize({ width, height: 844 });
            await take(page, where);
            await look(page, 'openAll');
            assert.deepEqual(await look(page, 'overflow'), { width, beyond: [] }, where);
            const { faults, measured } = await look(page, 'contrast');
            assert.deepEqual(faults, [], where);
            assert.ok(measured > 5, where);
            await take(page, `${where}-open`);
          }
      });
    });

  test('a hundred hostile names are shown as text', async () => {
    await withPage(`${base}/?level=failing&still`, async (page) => {
      const names = await page.locator('li strong bdi').allTextContents();
      assert.deepEqual(names.toSorted(), HOSTILE_NAMES.map(withoutSecrets).toSorted());
      const elements = 'script, img, iframe, form, base, template, textarea, math, a[href^="javascript"]';
      assert.equal(await page.locator(elements).count(), 0);
    });
    await withPage(pathToFileURL(file).href, async (page) => {
      const names = await page.locator('.legend .name').allTextContents();
      assert.ok(names.includes(HOSTILE_NAMES[0] ?? ''), names.join());
      assert.equal(await page.locator('script, img').count(), 0);
    });
  });

  test('a thousand databases are ten pages of bounded size', async () => {
    await withPage(`${base}/?still`, async (page) => {
      assert.equal(await page.locator('li').count(), PAGE_TARGETS);
      const nodes = await look(page, 'elements');
      assert.ok(nodes < 60 * PAGE_TARGETS, `${nodes} elements`);
      await page
        .getByRole('navigation', { name: 'Pages' })
        .getByRole('link', { name: '10', exact: true })
        .click();
      await page.waitForURL(/page=10&still/);
      assert.equal(await page.locator('li').count(), PAGE_TARGETS);
    });
  });

  test('Tab, Enter and Escape lead to the command that restores a snapshot, and back', async () => {
    await withPage(`${base}/?level=late&still`, async (page) => {
      const tabTo = async (selector: string): Promise<void> => {
        for (let tabs = 0; tabs < 50; tabs++) {
          await page.keyboard.press('Tab');
          if (await look(page, 'hasFocus', selector)) return;
        }
        assert.fail(`50 tabs do not lead to ${selector}`);
      };
      await tabTo('summary');
      const outline = await look(page, 'outline');
      assert.equal(outline, 'solid');
      await page.keyboard.press('Enter');
      assert.equal(await page.locator('details[open]').count(), 1);
      await tabTo('details[open] a');
      await page.keyboard.press('Enter');
      await page.waitForURL(/\/target\?id=/);
      await tabTo('td button');
      await page.keyboard.press('Enter');
      const popover = page.locator(':popover-open');
      const newest = database.moments.at(-1);
      assert.equal(await popover.locator('code').textContent(), newest?.restore);
      await take(page, 'popover');
      await page.keyboard.press('Escape');
      assert.equal(await popover.count(), 0);
      assert.ok(await look(page, 'hasFocus', 'td button'));
      await tabTo('nav a');
    });
  });

  test('scripts, pictures and styles of others are refused on each page', async () => {
    const page = await newPage();
    for (const [name, url] of views) {
      await page.goto(url());
      const { ran, refused } = await look(page, 'inject');
      const expected = ['img-src', 'script-src-elem', 'style-src-elem'];
      assert.deepEqual([ran, new Set(refused)], [false, new Set(expected)], name);
    }
    await page.close();
  });

  test('the measures find a text that is hard to read, and a page that is too wide', async () => {
    const page = await newPage();
    await page.setViewportSize({ width: 390, height: 844 });
    await page.goto('about:blank');
    await page.setContent('<body><p style="color: #888">grey</p><p style="width: 500px">wide</p></body>');
    assert.deepEqual(
      (await look(page, 'contrast')).faults.map(({ text }) => text),
      ['grey'],
    );
    assert.equal((await look(page, 'overflow')).beyond.length, 1);
    await page.close();
  });
});

async function take(page: Page, name: string): Promise<void> {
  if (SCREENSHOTS !== undefined)
    await page.screenshot({ path: join(SCREENSHOTS, `${name}.png`), fullPage: !name.startsWith('list') });
}

/** The report of a store with three snapshots of a database whose tables have hostile names. */
async function reportOf(folder: string): Promise<DatabaseReport> {
  const here = await storeHere(new DirectoryBackend(join(folder, 'store')), folder);
  const path = join(folder, `a'"<b>.db`);
  const tables = ['orders', 'events', ...HOSTILE_NAMES.slice(0, 20), ...HOSTILE_NAMES.slice(-8)];
  for (let round = 0; round < 3; round++) {
    const writer = new DatabaseSync(path);
    for (const [at, name] of tables.entries()) {
      const table = `"${name.replaceAll('"', '""')}"`;
      writer.exec(`CREATE TABLE IF NOT EXISTS ${table} (text)`);
      if (at < 8 - 2 * round)
        writer.exec(
          `INSERT INTO ${table} WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n LIMIT ${Math.floor(400 / (at + 1))}) SELECT hex(randomblob(200)) FROM n`,
        );
    }
    writer.close();
    await backupHere(here, path);
  }
  const snapshots = await here.store.snapshots();
  const [, older, newer] = snapshots;
  assert.ok(older !== undefined && newer !== undefined);
  const options = { measured: 3, maxBytes: Infinity };
  return reportDatabase(here.store, join(folder, 'store'), { snapshots, pair: [older, newer] }, options);
}

function idOf(at: number): string {
  return at.toString(16).padStart(16, '0');
}

/** A hundred with hostile names fail; others are late, fine or gone. */
function targetsOf(): ReturnType<typeof targetOf>[] {
  const others: Level[] = ['late', 'fine', 'gone'];
  return Array.from({ length: TARGETS }, (_, at) => {
    const hostile = HOSTILE_NAMES[at];
    const name = withoutSecrets(hostile ?? `/srv/tenants/${at}/app.db`);
    return targetOf({
      id: idOf(at),
      origin: name,
      target: hostile === undefined ? `/copies/${at}.db` : name,
      kind: 'store',
      snapshot: 'ab'.repeat(32),
      level: hostile === undefined ? (others[at % 3] as Level) : 'failing',
      why: hostile === undefined ? undefined : name,
    });
  });
}
