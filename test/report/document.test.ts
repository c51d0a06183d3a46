import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { describe, test } from 'node:test';
import { BEGINNING, renderReport } from '../../src/report/document.ts';
import { visibleWord } from '../../src/transport/command-words.ts';
import { drawMap } from '../../src/report/page-map.ts';
import { ownersOf } from '../../src/report/page-owners.ts';
import { growthOf } from '../../src/report/report.ts';
import type { DatabaseReport } from '../../src/report/report.ts';
import { STYLE } from '../../src/report/style.ts';

const HOSTILE = `</style></code><img src=x onerror=alert(1)>"' & <script>alert(1)</script>\u202e`;

function hostileDatabase(): DatabaseReport {
  const owners = ownersOf(3, [{ page: 2, name: HOSTILE }]);
  const differing = [[2, 2]] as const;
  return {
    name: HOSTILE,
    host: HOSTILE,
    moments: [1, 2].map((atMs) => ({
      id: '0123456789abcdef',
      atMs,
      sizeBytes: 4096 * atMs,
      pagesChanged: 1,
      bytesAdded: 100,
      restore: HOSTILE,
    })),
    omitted: 3,
    growth: growthOf([HOSTILE, HOSTILE], [new Map([[HOSTILE, 1]]), new Map([[HOSTILE, 2]])]),
    map: drawMap({ from: HOSTILE, to: HOSTILE, pageSize: 4096, pageCount: 3, differing, owners: [owners] }),
    remarks: [HOSTILE],
  };
}

describe('the file of a report', () => {
  const database = hostileDatabase();
  for (const databases of [[database], [database, database]])
    test(`names in a report of ${databases.length} are text, and it loads nothing`, () => {
      const html = renderReport({ title: HOSTILE, madeAtMs: 1, databases });
      assert.ok(html.startsWith(BEGINNING));
      assert.doesNotMatch(
        html,
        /<img|<script|onerror=alert\(1\)>"|\son\w+=(?!alert)|\sstyle=|(?:src|href)="/,
      );
      assert.equal(html.split('</style>').length, 2);
      assert.match(html, /default-src 'none'; style-src 'sha256-/);
      // Each element that is opened is closed, so no name has ended one.
      for (const tag of ['main', 'code', 'table', 'ul', 'li', 'svg', 'button', 'div', 'bdi', 'details'])
        assert.equal(html.split(`<${tag}`).length, html.split(`</${tag}>`).length, tag);
    });

  test('its style loads nothing', () => assert.doesNotMatch(STYLE, /url\(|@import|<|expression/));
});

test('a shell reads any text back as one word', () => {
  for (const text of [
    '/srv/a b.db',
    "it's",
    '$(touch x)`',
    '-n',
    '\n\t\u202e\\x41',
    HOSTILE,
    'ä\u0007\u2028',
  ])
    assert.equal(spawnSync('bash', ['-c', `printf %s ${visibleWord(text)}`]).stdout.toString(), text);
});
