import { requestCounts } from '../../backup/backends/remote/request-counts.ts';
import type { Output } from '../terminal/output.ts';
import { counted, formatBytes, formatCount } from '../terminal/format.ts';

/** Has the summary of `--json` say how many requests a store elsewhere took; nothing for a folder. */
export function addRequestsTo(output: Output): void {
  output.moreOfSummary = () => (isNothing() ? {} : { requests: { ...requestCounts } });
}

/** Says with -v how many requests the store took. */
export function sayRequests(output: Output): void {
  if (isNothing() || output.options.json) return;
  const { reads, writes, deletes, bytesRead, bytesWritten } = requestCounts;
  output.note(
    `the store took ${counted(reads, 'read')} (${formatBytes(bytesRead)}), ${counted(writes, 'write')} (PUT and LIST, ${formatBytes(bytesWritten)}) and ${formatCount(deletes)} deletes`,
  );
}

function isNothing(): boolean {
  const { reads, writes, deletes } = requestCounts;
  return reads + writes + deletes === 0;
}
