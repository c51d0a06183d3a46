import {
  counted,
  formatBytes,
  formatDuration,
  formatPages,
  formatTimeLeft,
} from '../../cli/terminal/format.ts';
import type { Level, Status, TargetStatus } from '../state/judge.ts';

/** How many targets a page has. */
export const PAGE_TARGETS = 100;

/** The worst first. */
const LEVELS: readonly Level[] = ['failing', 'late', 'fine', 'gone'];

/** Shapes besides colours, for those who cannot tell these apart. */
const SIGNS: Readonly<Record<Level, string>> = { fine: '●', late: '▲', failing: '■', gone: '○' };

/** Text for HTML, in an element or a quoted attribute: names of databases may be hostile. */
function escapeHtml(text: string): string {
  return text.replaceAll(/[&<>"']/g, (character) => `&#${character.charCodeAt(0)};`);
}

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
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
${isStill ? '' : '<meta http-equiv="refresh" content="30">\n'}<title>${SIGNS[status.level]} sqlsync: ${status.level}</title>
<link rel="stylesheet" href="/style.css">
</head>
<body>
<header>
<h1><span class="${status.level}" aria-hidden="true">${SIGNS[status.level]}</span> ${status.level}</h1>
<p>${counted(status.targets.length, 'target')} of ${escapeHtml(status.config)}, at <time datetime="${iso(status.atMs)}">${clock(status.atMs)}</time></p>
${failure === undefined ? '' : `<p role="alert">The changed configuration was not taken: ${escapeHtml(failure.message)}</p>`}
${status.troubles.map((trouble) => `<p role="alert">${escapeHtml(trouble)}</p>\n`).join('')}<nav aria-label="Levels">${levelLinks(status, level)} ${stillLink(page, level, isStill)}</nav>
</header>
<main>
${shown.length === 0 ? '<p>No targets.</p>' : `<ul>\n${shown.map((target) => renderTarget(target, status.atMs)).join('\n')}\n</ul>`}
</main>
${pages === 1 ? '' : `<nav aria-label="Pages">${pageLinks(page, pages, level)}</nav>`}
</body>
</html>
`;
}

function levelLinks({ targets }: Status, current: Level | undefined): string {
  const counts = LEVELS.map(
    (level) => [level, targets.filter((each) => each.level === level).length] as const,
  );
  const links = counts.flatMap(([level, count]) =>
    count === 0 ? [] : [link(`/?level=${level}`, `${count} ${level}`, level === current)],
  );
  return [link('/', 'all', current === undefined), ...links].join(' ');
}

function pageLinks(page: number, pages: number, level: Level | undefined): string {
  const more = level === undefined ? '' : `&amp;level=${level}`;
  return Array.from({ length: pages }, (_, at) =>
    link(`/?page=${at + 1}${more}`, String(at + 1), at + 1 === page),
  ).join(' ');
}

/** To read a target that is opened: a page that loads itself again closes it. */
function stillLink(page: number, level: Level | undefined, isStill: boolean): string {
  const place = `/?page=${page}${level === undefined ? '' : `&amp;level=${level}`}`;
  return isStill
    ? link(place, 'load it again every 30 s', false)
    : link(`${place}&amp;still`, 'keep it still', false);
}

function link(href: string, text: string, isCurrent: boolean): string {
  return `<a href="${href}"${isCurrent ? ' aria-current="page"' : ''}>${text}</a>`;
}

function renderTarget(target: TargetStatus, atMs: number): string {
  const { origin, target: place, level, why, lagMs, isRunning, isFollowing } = target;
  const age = isFollowing ? 'follows' : lagMs === undefined ? 'no copy yet' : `${span(lagMs)} old`;
  const facts: readonly (readonly [name: string, value: string])[] = [
    ['Schedule', target.schedule],
    ['Last success', moment(target.lastSuccessAtMs)],
    ['Next run', isRunning ? 'runs now' : moment(target.nextRunAtMs)],
    ['Last moved', movedOf(target)],
    [
      'Proven restorable',
      target.provenAtMs === undefined
        ? 'never'
        : `${moment(target.provenAtMs)}, ${span(atMs - target.provenAtMs)} ago`,
    ],
    ['Size', target.sizeBytes === undefined ? '' : formatBytes(target.sizeBytes)],
    [
      'Growth',
      target.growthBytes === undefined
        ? ''
        : `${target.growthBytes < 0 ? '−' : ''}${formatBytes(Math.abs(target.growthBytes))}`,
    ],
    ['Snapshot', target.snapshot ?? ''],
  ];
  const rows = facts.filter(([, value]) => value !== '');
  return `<li><details>
<summary><span class="${level}"><span aria-hidden="true">${SIGNS[level]}</span> ${level}</span> <strong>${escapeHtml(origin)}</strong> <span>→ ${escapeHtml(place)}</span> <span>${age}</span> ${sparkline(target.sizes)}</summary>
${why === undefined ? '' : `<p>${escapeHtml(why)}</p>`}
<dl>${rows.map(([name, value]) => `<div><dt>${name}</dt><dd>${escapeHtml(value)}</dd></div>`).join('')}</dl>
<p>To restore this copy: <code>${escapeHtml(restoreCommand(target))}</code></p>
</details></li>`;
}

function movedOf({ moved }: TargetStatus): string {
  if (moved === undefined) return '';
  return `${formatPages(moved.pagesChanged)} changed, ${formatBytes(moved.bytes)}, ${formatDuration(moved.durationMs)}`;
}

function restoreCommand({ kind, target, snapshot }: TargetStatus): string {
  const quoted = (text: string): string => `'${text.replaceAll("'", String.raw`'\''`)}'`;
  return kind === 'store'
    ? `sqlsync restore ${quoted(`${target}#${snapshot ?? 'latest'}`)} restored.db`
    : `sqlsync ${quoted(target)} restored.db`;
}

const WIDTH = 80;
const HEIGHT = 16;

/** The sizes as a line; nothing for fewer than two. */
function sparkline(sizes: TargetStatus['sizes']): string {
  if (sizes.length < 2) return '';
  const bytes = sizes.map(([, size]) => size);
  const [least, most] = [Math.min(...bytes), Math.max(...bytes)];
  const points = bytes.map((size, at) => {
    const x = (at / (bytes.length - 1)) * WIDTH;
    const y = most === least ? HEIGHT / 2 : HEIGHT - 1 - ((size - least) / (most - least)) * (HEIGHT - 2);
    return `${x.toFixed(1)},${y.toFixed(1)}`;
  });
  const says = `Size from ${formatBytes(bytes[0] ?? 0)} to ${formatBytes(bytes.at(-1) ?? 0)}`;
  return `<svg viewBox="0 0 ${WIDTH} ${HEIGHT}" width="${WIDTH}" height="${HEIGHT}" role="img" aria-label="${says}"><polyline points="${points.join(' ')}"/></svg>`;
}

function moment(ms: number | undefined): string {
  return ms === undefined || ms >= Number.MAX_SAFE_INTEGER ? '' : clock(ms);
}

/** By the clock of the service: 2026-11-21 03:00:12. */
function clock(ms: number): string {
  const date = new Date(ms);
  const two = (number: number): string => String(number).padStart(2, '0');
  const day = `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())}`;
  return `${day} ${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`;
}

function iso(ms: number): string {
  return new Date(ms).toISOString();
}

const DAY_MS = 86_400_000;

function span(ms: number): string {
  return ms >= 2 * DAY_MS ? `${Math.floor(ms / DAY_MS)} d` : formatTimeLeft(Math.max(0, ms));
}

/** Dark and light by the system; one column on a phone. */
export const STYLE = `:root { color-scheme: light dark; --fine: #146c2e; --late: #8a5300; --failing: #b3261e; --line: #c8c8c8; }
@media (prefers-color-scheme: dark) { :root { --fine: #6dd58c; --late: #ffb95c; --failing: #ffb4ab; --line: #4a4a4a; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 75rem; padding: 1rem; font: 1rem/1.5 system-ui, sans-serif; }
h1 { margin: 0; font-size: 1.75rem; }
p { margin: .25rem 0; overflow-wrap: anywhere; }
nav { display: flex; flex-wrap: wrap; gap: .25rem .75rem; margin: .5rem 0; }
nav a { padding: .25rem 0; min-width: 1.5rem; }
nav a[aria-current] { font-weight: bold; text-decoration: none; color: inherit; }
ul { list-style: none; margin: 1rem 0; padding: 0; border-top: 1px solid var(--line); }
li { border-bottom: 1px solid var(--line); }
summary { padding: .6rem 0; cursor: pointer; overflow-wrap: anywhere; }
summary > * { margin-right: .6rem; }
:focus-visible { outline: 2px solid currentColor; outline-offset: 2px; }
.fine { color: var(--fine); } .late { color: var(--late); } .failing { color: var(--failing); }
svg { vertical-align: middle; } polyline { fill: none; stroke: currentColor; stroke-width: 1.5; }
dl { display: grid; grid-template-columns: repeat(auto-fill, minmax(15rem, 1fr)); gap: .5rem 1.5rem; margin: .25rem 0 .75rem; }
dt { font-size: .875rem; opacity: .8; } dd { margin: 0; overflow-wrap: anywhere; }
code { display: inline-block; padding: .2rem .4rem; border: 1px solid var(--line); overflow-wrap: anywhere; user-select: all; }
details[open] { padding-bottom: .75rem; }
`;
