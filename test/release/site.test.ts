import assert from 'node:assert/strict';
import { once } from 'node:events';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { dirname, extname, join } from 'node:path';
import { test } from 'node:test';
import { startBrowser } from '../support/browser.ts';

const ROOT = join(import.meta.dirname, '..', '..');
const SITE = join(ROOT, 'build', 'site');
/** A folder for pictures of all pages, to look at. */
const SCREENSHOTS = process.env['SQLSYNC_TEST_SCREENSHOTS'];
const TYPES: Readonly<Record<string, string>> = {
  '.html': 'text/html',
  '.js': 'text/javascript',
  '.css': 'text/css',
  '.json': 'application/json',
};

// The tests have no configuration of npm, which may need one to fetch VitePress.
const isMade = process.env['SQLSYNC_SLOW_TESTS'] === '1' && existsSync(SITE);
const skip = isMade ? false : 'npm run site && SQLSYNC_SLOW_TESTS=1 npm test looks at the site';

test('the site of the manual has no dead link, and asks for nothing elsewhere', { skip }, async (t) => {
  const pages = readdirSync(SITE, { recursive: true, encoding: 'utf8' }).filter((name) =>
    name.endsWith('.html'),
  );
  assert.ok(pages.includes('index.html') && pages.includes('docs/backup.html'), pages.join());
  assert.deepEqual(
    pages.flatMap((page) => deadLinks(page).map((link) => `${page}: ${link}`)),
    [],
  );

  const browser = await startBrowser();
  if (typeof browser === 'string') return t.diagnostic(browser);
  t.after(() => browser.close());
  const server = createServer(({ url = '/' }, response) => {
    const path = new URL(url, 'http://site').pathname;
    const file = join(SITE, path.endsWith('/') ? `${path}index.html` : path);
    const type = TYPES[extname(file)] ?? 'application/octet-stream';
    if (!existsSync(file)) return response.writeHead(404).end();
    return response.writeHead(200, { 'content-type': type }).end(readFileSync(file));
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.after(() => server.close());
  t.after(() => server.closeAllConnections());
  const base = `http://127.0.0.1:${(server.address() as AddressInfo).port}/`;
  const page = await browser.newPage();
  page.setDefaultTimeout(120_000);
  const elsewhere: string[] = [];
  page.on('request', (request) => {
    if (!request.url().startsWith(base) && !request.url().startsWith('data:')) elsewhere.push(request.url());
  });
  for (const width of [1280, 390])
    for (const name of pages) {
      await page.setViewportSize({ width, height: 844 });
      await page.goto(base + name, { waitUntil: 'networkidle' });
      if (SCREENSHOTS !== undefined)
        await page.screenshot({ path: join(SCREENSHOTS, `${name.replaceAll('/', '-')}-${width}.png`) });
      const scrolled = await page.evaluate<number>('scrollTo(100_000, 0), scrollX');
      assert.equal(scrolled, 0, `${name} is wider than a window of ${width} pixels`);
    }
  assert.deepEqual(elsewhere, []);
});

/** Links within the site to a page, a file or a heading that is not there. */
function deadLinks(page: string): string[] {
  const links = [...readFileSync(join(SITE, page), 'utf8').matchAll(/ (?:href|src)="([^"]*)"/g)];
  return links
    .map(([, link = '']) => link)
    .filter((link) => {
      if (/^[a-z]+:/.test(link)) return false;
      const [path = '', anchor] = link.split('#');
      const name = path.startsWith('/') ? path.slice(1) : join(dirname(page), path);
      const to = path === '' ? page : name === '' || name.endsWith('/') ? `${name}index.html` : name;
      if (!existsSync(join(SITE, to))) return true;
      if (anchor === undefined || !to.endsWith('.html')) return false;
      return !readFileSync(join(SITE, to), 'utf8').includes(` id="${decodeURIComponent(anchor)}"`);
    });
}
