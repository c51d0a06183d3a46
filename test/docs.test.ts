import assert from 'node:assert/strict';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { describe, test } from 'node:test';

const ROOT = dirname(import.meta.dirname);
const PAGES = [
  'README.md',
  'CONTRIBUTING.md',
  'CHANGELOG.md',
  'SECURITY.md',
  'protocol/SPEC.md',
  'bench/RESULTS.md',
  ...readdirSync(join(ROOT, 'docs')).map((name) => `docs/${name}`),
].filter((path) => path.endsWith('.md'));

function read(path: string): string {
  return readFileSync(join(ROOT, path), 'utf8');
}

function withoutCode(text: string): string {
  return text
    .replaceAll(/^(`{3,}).*?^\1$/gms, '')
    .replaceAll(/`[^`]*`/g, (code) => code.replaceAll(/[[\]()]/g, ''));
}

/** The anchors of a page's headings, as they are made for the web. */
function anchorsOf(path: string): Set<string> {
  const headings = read(path).matchAll(/^#+ (.*)$/gm);
  return new Set(
    [...headings].map(([, heading]) =>
      (heading as string)
        .toLowerCase()
        .replaceAll(/[^\p{L}\p{N}\s_-]/gu, '')
        .replaceAll(' ', '-'),
    ),
  );
}

describe('the pages', () => {
  for (const path of PAGES) {
    test(`every link of ${path} leads somewhere`, () => {
      for (const [, target = ''] of withoutCode(read(path)).matchAll(/\]\(([^)\s]+)\)/g)) {
        if (/^\w+:/.test(target)) continue;
        const [file = '', anchor] = target.split('#');
        const page = file === '' ? path : join(dirname(path), file);
        assert.ok(existsSync(join(ROOT, page)), `${target} leads nowhere`);
        if (anchor !== undefined) assert.ok(anchorsOf(page).has(anchor), `${target} has no such heading`);
      }
    });
  }

  // In the npm registry, sqlsync is a package of somebody else, which npx would fetch and run.
  test('no page, help or hint has its reader run sqlsync with npx', () => {
    const sources = ['src', 'bin'].flatMap((folder) =>
      readdirSync(join(ROOT, folder), { recursive: true, encoding: 'utf8' }).map((name) =>
        join(folder, name),
      ),
    );
    const texts = [...PAGES, ...sources.filter((name) => /\.[jt]s$/.test(name))];
    assert.deepEqual(
      texts.filter((path) => /(?:npx|npm exec|pnpm dlx)(?: -\S+)* sqlsync/.test(read(path))),
      [],
    );
  });

  test('the pages that a user reads first fit a terminal', () => {
    for (const path of [
      'README.md',
      'docs/cli.md',
      'docs/remote.md',
      'docs/jobs.md',
      'docs/server-gone.md',
    ]) {
      const wide = read(path)
        .split('\n')
        .filter((line) => line.length > 120);
      assert.deepEqual(wide, [], path);
    }
    assert.ok(read('README.md').split('\n').length <= 140, 'the README is short');
  });
});
