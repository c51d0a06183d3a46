import { createHash } from 'node:crypto';
import { counted, formatBytes } from '../cli/terminal/format.ts';
import { sanitizeLine } from '../errors.ts';
import { escapeHtml, nameHtml, timeHtml } from './html.ts';
import type { DatabaseReport, Report } from './report.ts';
import { STYLE } from './style.ts';
import { databaseHtml } from './views.ts';

/** How each report begins: a file that begins otherwise is not ours to replace. */
export const BEGINNING = '<!doctype html>\n<!-- sqlsync report -->\n';

/** The report as one file that loads nothing and has no script. Pure. */
export function renderReport({ title, madeAtMs, databases }: Report): string {
  const digest = createHash('sha256').update(STYLE).digest('base64');
  const isOne = databases.length === 1;
  const sections = databases.map((database, at) => {
    const views = databaseHtml(database, `d${at}`, isOne ? 2 : 3);
    return isOne
      ? `<p>${titleOf(database)}</p>\n${views}`
      : `<li><details><summary>${titleOf(database)}</summary>\n${views}\n</details></li>`;
  });
  return `${BEGINNING}<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'sha256-${digest}'; base-uri 'none'; form-action 'none'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>sqlsync: ${escapeHtml(sanitizeLine(title, 200))}</title>
<style>${STYLE}</style>
</head>
<body>
<header>
<h1>${nameHtml(title)}</h1>
<p>${counted(databases.length, 'database')}, at ${timeHtml(madeAtMs)}</p>
</header>
<main>
${isOne ? sections.join('') : `<ul>\n${sections.join('\n')}\n</ul>`}
</main>
</body>
</html>
`;
}

function titleOf({ name, host, moments, omitted }: DatabaseReport): string {
  const newest = moments.at(-1);
  const facts =
    newest === undefined
      ? ''
      : ` <span>${counted(moments.length + omitted, 'snapshot')}</span> <span>${formatBytes(newest.sizeBytes)}</span> <span>newest ${timeHtml(newest.atMs)}</span>`;
  return `<strong>${nameHtml(name)}</strong>${host === undefined ? '' : ` <span>on ${nameHtml(host)}</span>`}${facts}`;
}
