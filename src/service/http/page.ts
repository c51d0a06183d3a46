import { counted } from '../../cli/terminal/format.ts';
import { escapeHtml, timeHtml } from '../../report/html.ts';
import type { Level, Status, TargetStatus } from '../state/judge.ts';
import { SIGNS, factsHtml, lineHtml } from './target-views.ts';

/** How many targets a page has. */
export const PAGE_TARGETS = 100;

/** How often the list loads itself again, in seconds. */
const LOOK_AGAIN_S = 30;

/** The worst first. */
const LEVELS: readonly Level[] = ['failing', 'late', 'fine', 'gone'];

/**
 * The page, without a script: it loads itself again every 30 s, unless `still` is set. Pure. `query` has `page`, `level`
 * and `still`.
 */
export function renderPage(status: Status, query: URLSearchParams): string {
  const level = LEVELS.find((each) => each === query.get('level'));
  const chosen = status.targets.filter((target) => level === undefined || target.level === level);
  const sorted = chosen.toSorted((a, b) => LEVELS.indexOf(a.level) - LEVELS.indexOf(b.level));
  const pages = Math.max(1, Math.ceil(sorted.length / PAGE_TARGETS));
  const page = Math.min(pages, Math.max(1, Math.trunc(Number(query.get('page') ?? 1)) || 1));
  const shown = sorted.slice((page - 1) * PAGE_TARGETS, page * PAGE_TARGETS);
  const failure = status.configFailure;
  const isStill = query.has('still');
  return `${headHtml(`${SIGNS[status.level]} sqlsync: ${status.level}`, isStill ? undefined : LOOK_AGAIN_S)}
<body>
<header>
<h1><span class="${status.level}" aria-hidden="true">${SIGNS[status.level]}</span> ${status.level}</h1>
<p>${counted(status.targets.length, 'target')} of ${escapeHtml(status.config)}, at ${timeHtml(status.atMs)}</p>
${failure === undefined ? '' : `<p role="alert">The changed configuration was not taken: ${escapeHtml(failure.message)}</p>`}
${status.troubles.map((trouble) => `<p role="alert">${escapeHtml(trouble)}</p>\n`).join('')}<nav aria-label="Levels">${levelLinks(status, level, isStill)} ${stillLink(page, level, isStill)}</nav>
</header>
<main>
${shown.length === 0 ? '<p>No targets.</p>' : `<ul>\n${shown.map((target) => renderTarget(target, status.atMs)).join('\n')}\n</ul>`}
</main>
${pages === 1 ? '' : `<nav aria-label="Pages">${pageLinks(page, pages, level, isStill)}</nav>`}
</body>
</html>
`;
}

/** What each page begins with; it loads itself again after some seconds, if that is given. */
export function headHtml(title: string, againS: number | undefined): string {
  const again = againS === undefined ? '' : `<meta http-equiv="refresh" content="${againS}">\n`;
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
${again}<title>${escapeHtml(title)}</title>
<link rel="stylesheet" href="/style.css">
</head>`;
}

/** An address of the list, with what it shows. */
function place(page: number, level: Level | undefined, isStill: boolean): string {
  const words = [
    page > 1 ? `page=${page}` : [],
    level ? `level=${level}` : [],
    isStill ? 'still' : [],
  ].flat();
  return words.length === 0 ? '/' : `/?${words.join('&amp;')}`;
}

function levelLinks({ targets }: Status, current: Level | undefined, isStill: boolean): string {
  const counts = LEVELS.map(
    (level) => [level, targets.filter((each) => each.level === level).length] as const,
  );
  const links = counts.flatMap(([level, count]) =>
    count === 0 ? [] : [link(place(1, level, isStill), `${count} ${level}`, level === current)],
  );
  return [link(place(1, undefined, isStill), 'all', current === undefined), ...links].join(' ');
}

function pageLinks(page: number, pages: number, level: Level | undefined, isStill: boolean): string {
  return Array.from({ length: pages }, (_, at) =>
    link(place(at + 1, level, isStill), String(at + 1), at + 1 === page),
  ).join(' ');
}

/** To read a target that is opened: a page that loads itself again closes it. */
function stillLink(page: number, level: Level | undefined, isStill: boolean): string {
  const text = isStill ? `load it again every ${LOOK_AGAIN_S} s` : 'keep it still';
  return link(place(page, level, !isStill), text, false);
}

function link(href: string, text: string, isCurrent: boolean): string {
  return `<a href="${href}"${isCurrent ? ' aria-current="page"' : ''}>${text}</a>`;
}

function renderTarget(target: TargetStatus, atMs: number): string {
  return `<li><details>
<summary>${lineHtml(target)}</summary>
${factsHtml(target, atMs)}
<p><a href="/target?id=${escapeHtml(target.id)}">History, growth and map</a></p>
</details></li>`;
}
