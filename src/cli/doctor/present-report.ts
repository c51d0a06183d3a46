import { sanitizeLine } from '../../errors.ts';
import type { Facts, LockFacts } from '../../doctor/facts.ts';
import type { Finding, Report } from '../../doctor/finding.ts';
import { poolWaits, waitersOf } from '../../doctor/judge/locks.ts';
import { checkpointLimit } from '../../doctor/judge/wal.ts';
import { cut } from '../../doctor/judge/words.ts';
import { counted, formatBytes, formatCount, formatPages } from '../terminal/format.ts';
import { formatTable } from '../terminal/table.ts';

const HEADINGS = { danger: 'DANGER', blocked: 'BLOCKED', advice: 'ADVICE' } as const;

const MAX_SIZES = 20;

/** One page: the findings, then what they were drawn from. */
export function presentReport({ facts, findings }: Report, place: string): string {
  const verdict = findings.length === 0 ? 'nothing is wrong' : counted(findings.length, 'finding');
  const parts = [
    `${place}: ${verdict}`,
    ...findings.map(presentFinding),
    presentDatabase(facts),
    presentProcesses(facts),
    presentFull(facts),
    ...facts.unseen.map((line) => `Not seen: ${line}`),
  ];
  return parts.filter((part) => part !== '').join('\n\n');
}

/** Set off from one another; the last line is the one to copy. */
function presentFinding({ severity, id, title, meaning, mend }: Finding): string {
  return [
    `${HEADINGS[severity].padEnd(8)} ${sanitizeLine(title, 2000)} [${id}]`,
    `         ${sanitizeLine(meaning, 4000)}`,
    `         → ${sanitizeLine(mend, 4000)}`,
  ].join('\n');
}

function presentDatabase(facts: Facts): string {
  const { database, header, wal, journal } = facts;
  const mode = header === undefined ? 'no header' : header.isWal ? 'WAL mode' : 'rollback mode';
  const pages =
    header === undefined
      ? ''
      : `, ${formatPages(database.bytes / header.pageSize)} of ${header.pageSize} bytes`;
  const free = (header?.freePages ?? 0) > 0 ? `, ${formatPages(header?.freePages ?? 0)} free` : '';
  const lines = [
    `Database  ${formatBytes(database.bytes)}${pages}${free}; ${mode}; ${database.fileSystem ?? 'unknown file system'}; owner ${database.user}`,
  ];
  if (header?.isWal === true || wal.file !== undefined) lines.push(`WAL       ${walInWords(facts)}`);
  if (journal !== undefined)
    lines.push(
      `Journal   ${formatBytes(journal.bytes)}${journal.isHot ? ', hot' : journal.isUnfinished ? ', of a transaction under way' : ', not in use'}`,
    );
  const { unchecked } = facts.health;
  if (unchecked !== undefined) lines.push(`Health    the list of free pages was not followed: ${unchecked}`);
  return lines.join('\n');
}

function walInWords(facts: Facts): string {
  const { file, isInUse, state } = facts.wal;
  const size = file === undefined ? 'no -wal' : formatBytes(file.bytes);
  if (state === undefined)
    return `${size}; ${isInUse ? 'its index is being made' : facts.sight === 'all' ? 'not in use' : 'not seen to be in use'}`;
  const { frame, by } = checkpointLimit(facts, state);
  const limit = by.length === 0 ? '' : ` (PID ${by.join(', ')} stops it there)`;
  const growth =
    state.newCommits === 0
      ? 'no commit'
      : `${counted(state.newCommits, 'commit')}, ${counted(state.newFrames, 'new frame')}`;
  return `${size}; ${counted(state.frames, 'frame')}, ${formatCount(state.checkpointed)} checkpointed, a checkpoint could reach ${formatCount(frame)}${limit}; ${growth} in ${facts.lookedForMs} ms`;
}

function presentProcesses(facts: Facts): string {
  if (facts.processes.length === 0)
    return facts.unseen.length === 0 ? 'No process has it open.' : 'No process is seen to have it open.';
  const waiters = new Set(waitersOf(facts));
  return formatTable(facts.processes, [
    { title: 'PID', isRight: true, cell: ({ pid }) => String(pid) },
    { title: 'USER', cell: ({ user = '' }) => user },
    { title: 'CONTAINER', cell: ({ container = '' }) => container },
    {
      title: 'SINCE',
      cell: ({ startedAtMs }) => (startedAtMs === undefined ? '' : sinceInWords(startedAtMs)),
    },
    { title: 'LOCKS', cell: ({ pid }) => locksInWords(facts, pid) },
    {
      title: 'STATE',
      cell: ({ pid, state }) => (state === 'T' ? 'stopped' : waiters.has(pid) ? waitInWords(facts, pid) : ''),
    },
    { title: 'COMMAND', cell: ({ command = '' }) => cut(sanitizeLine(command, 1000), 25, 45) },
  ]);
}

function waitInWords(facts: Facts, pid: number): string {
  return poolWaits(facts, pid) ? 'waits' : 'waits (probably)';
}

function sinceInWords(startedAtMs: number): string {
  return new Date(startedAtMs).toISOString().replace('T', ' ').slice(0, 19);
}

/** ATTACHED, and the SHARED of an idle connection in WAL mode, say nothing. Behind a read mark stands its frame. */
function locksInWords(facts: Facts, pid: number): string {
  const marks = facts.wal.state?.readMarks;
  const isIdleLock = ({ name }: LockFacts): boolean =>
    name === 'ATTACHED' || (name === 'SHARED' && facts.wal.isInUse);
  return facts.locks
    .filter((lock) => lock.pid === pid && !isIdleLock(lock))
    .map(({ name }) => {
      const mark = name.startsWith('READ') ? marks?.[Number(name.slice(-1))] : undefined;
      return typeof mark === 'number' ? `${name}@${mark}` : name;
    })
    .join(' ');
}

function presentFull({ full, header }: Facts): string {
  if (full === undefined) return '';
  const unchecked = full.unchecked.map((line) => `Not checked: ${line}`);
  if (full.sizes.length === 0) return unchecked.join('\n');
  const sizes = formatTable(full.sizes.slice(0, MAX_SIZES), [
    { title: 'TABLE OR INDEX', cell: ({ name, table }) => (name === table ? name : `${name} (of ${table})`) },
    { title: 'PAGES', isRight: true, cell: ({ pages }) => formatCount(pages) },
    { title: 'BYTES', isRight: true, cell: ({ bytes }) => formatBytes(bytes) },
    { title: 'EMPTY', isRight: true, cell: ({ unusedBytes }) => formatBytes(unusedBytes) },
  ]);
  const hidden = full.sizes.length - MAX_SIZES;
  const more = hidden > 0 ? [`and ${hidden} more`] : [];
  const free = header === undefined ? 0 : header.freePages * header.pageSize;
  const vacuum = `VACUUM would give back about ${formatBytes(full.vacuumBytes)}, ${formatBytes(free)} of them in free pages.`;
  return [sizes, ...more, vacuum, ...unchecked].join('\n');
}
