import { sanitizeLine } from '../../errors.ts';
import { cut } from '../../doctor/judge/words.ts';
import type { ProcessSummary, WatchSummary } from '../../doctor/watch/explain.ts';
import { counted, formatBytes, formatDuration } from '../terminal/format.ts';
import { histogramLines, timeOf } from './watch-screen.ts';

const MAX_PROCESSES = 20;

/** Sums up in sentences who held, waited and read. Pure. */
export function presentExplanation(summary: WatchSummary): string {
  const { path, forMs, looks, commits, checkpoints, processes } = summary;
  const shown = processes.slice(0, MAX_PROCESSES).flatMap(sentences);
  const hidden = processes.length - MAX_PROCESSES;
  return [
    `${sanitizeLine(path)}: watched for ${formatDuration(forMs)}, ${counted(looks, 'look')}`,
    `${counted(commits, 'commit')}, ${counted(checkpoints, 'checkpoint')}, ${formatBytes(summary.walBytesWritten)} into the WAL, which had ${formatBytes(summary.walBytesMax)} at most`,
    ...shown,
    ...(hidden > 0 ? [`and ${hidden} more`] : []),
    'Holds of the writer’s lock:',
    ...histogramLines(summary.histogram),
    ...summary.unseen.map((line) => `Not seen: ${line}`),
  ].join('\n');
}

/** PID 4711 `worker.js` held the write lock 63 % of the time, 41 times for over 1 s; at 12:03:11 … */
function sentences(process: ProcessSummary): string[] {
  const { pid, command, heldShare, waitedShare, longHolds, longest, longestReadMs, longestPinMs } = process;
  const name = command === '' ? `PID ${pid}` : `PID ${pid} \`${cut(sanitizeLine(command, 1000), 40, 60)}\``;
  const said: string[] = [];
  if (heldShare > 0) {
    const times = longHolds === 0 ? '' : `, ${longHolds} ${longHolds === 1 ? 'time' : 'times'} for over 1 s`;
    const worst =
      longest === undefined || longest.forMs === 0
        ? ''
        : `; at ${timeOf(longest.sinceMs)} it held it for ${formatDuration(longest.forMs)}${longest.waiting === 0 ? '' : ` while ${longest.waiting} ${longest.waiting === 1 ? 'process' : 'processes'} waited`}`;
    said.push(`${name} held the write lock ${percent(heldShare)} of the time${times}${worst}`);
  }
  if (waitedShare > 0) said.push(`${name} probably waited for it ${percent(waitedShare)} of the time`);
  if (longestPinMs >= 1000)
    said.push(`${name} read one state for ${formatDuration(longestPinMs)}, and pinned the WAL meanwhile`);
  else if (longestReadMs >= 1000)
    said.push(`${name} was reading at each look for ${formatDuration(longestReadMs)}`);
  return said;
}

function percent(share: number): string {
  return share < 0.01 ? 'under 1 %' : `${Math.round(share * 100)} %`;
}
