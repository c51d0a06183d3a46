import { escapeHtml, timeHtml } from '../../report/html.ts';
import type { ReportAnswer } from '../../report/report.ts';
import { databaseHtml } from '../../report/views.ts';
import { headHtml } from './page.ts';
import type { Status, TargetStatus } from '../state/judge.ts';
import { SIGNS, copyHtml, factsHtml, levelHtml } from './target-views.ts';

/** How often the page looks whether its report is there, in seconds. */
const LOOK_AGAIN_S = 2;

/** The page of one target: what the list says of it, and the views of its report. Without a script. Pure. */
export function renderTargetPage(target: TargetStatus, { atMs }: Status, report: ReportAnswer): string {
  const title = `${SIGNS[target.level]} ${target.origin}`;
  return `${headHtml(title, report.is === 'reading' ? LOOK_AGAIN_S : undefined)}
<body>
<header>
<nav aria-label="Back"><a href="/">All targets</a></nav>
<h1><bdi>${escapeHtml(target.origin)}</bdi></h1>
<p>${levelHtml(target.level)} ${copyHtml(target)} <span>at ${timeHtml(atMs)}</span></p>
</header>
<main>
${factsHtml(target, atMs)}
${reportHtml(report)}
</main>
</body>
</html>
`;
}

function reportHtml(report: ReportAnswer): string {
  if (report.is === 'ready') return databaseHtml(report.database, 'd', 2);
  const text = report.is === 'reading' ? 'The copy is read; its history comes in a moment.' : report.why;
  return `<p role="status">${escapeHtml(text)}</p>`;
}
