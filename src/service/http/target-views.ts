import { formatBytes, formatDuration, formatPages, formatTimeLeft } from '../../cli/terminal/format.ts';
import { clock, escapeHtml, sparkline } from '../../report/html.ts';
import { visibleWord } from '../../transport/command-words.ts';
import type { Level, TargetStatus } from '../state/judge.ts';

/** Shapes besides colours, for those who cannot tell these apart. */
export const SIGNS: Readonly<Record<Level, string>> = { fine: '●', late: '▲', failing: '■', gone: '○' };

export function levelHtml(level: Level): string {
  return `<span class="${level}"><span aria-hidden="true">${SIGNS[level]}</span> ${level}</span>`;
}

/** A target on one line: level, places, age, sizes. */
export function lineHtml(target: TargetStatus): string {
  return `${levelHtml(target.level)} <strong><bdi>${escapeHtml(target.origin)}</bdi></strong> ${copyHtml(target)}`;
}

/** Where the copy is, its age, and its sizes. */
export function copyHtml(target: TargetStatus): string {
  const { lagMs, isFollowing } = target;
  const age = isFollowing ? 'follows' : lagMs === undefined ? 'no copy yet' : `${span(lagMs)} old`;
  return `<span>→ <bdi>${escapeHtml(target.target)}</bdi></span> <span>${age}</span> ${sizesHtml(target)}`;
}

/** What is known of a target, and the command that restores its copy. */
export function factsHtml(target: TargetStatus, atMs: number): string {
  const { why, isRunning } = target;
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
  return `${why === undefined ? '' : `<p>${escapeHtml(why)}</p>`}
<dl>${rows.map(([name, value]) => `<div><dt>${name}</dt><dd>${escapeHtml(value)}</dd></div>`).join('')}</dl>
<p>To restore this copy: <code>${escapeHtml(restoreCommand(target))}</code></p>`;
}

function sizesHtml({ sizes }: TargetStatus): string {
  const bytes = sizes.map(([, size]) => size);
  return sparkline(bytes, `Size from ${formatBytes(bytes[0] ?? 0)} to ${formatBytes(bytes.at(-1) ?? 0)}`);
}

function movedOf({ moved }: TargetStatus): string {
  if (moved === undefined) return '';
  return `${formatPages(moved.pagesChanged)} changed, ${formatBytes(moved.bytes)}, ${formatDuration(moved.durationMs)}`;
}

function restoreCommand({ kind, target, snapshot }: TargetStatus): string {
  return kind === 'store'
    ? `sqlsync restore ${visibleWord(`${target}#${snapshot ?? 'latest'}`)} restored.db`
    : `sqlsync ${visibleWord(target)} restored.db`;
}

const DAY_MS = 86_400_000;

function span(ms: number): string {
  return ms >= 2 * DAY_MS ? `${Math.floor(ms / DAY_MS)} d` : formatTimeLeft(Math.max(0, ms));
}

function moment(ms: number | undefined): string {
  return ms === undefined || ms >= Number.MAX_SAFE_INTEGER ? '' : clock(ms);
}
