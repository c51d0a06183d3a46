import { formatClock } from '../../backup/snapshots/calendar-time.ts';
import type { Output } from '../terminal/output.ts';
import type { ForgetGroup } from '../../backup/prune/plan-forget.ts';
import { inOrder } from '../../backup/files/snapshot-order.ts';
import { describeGroupKey } from '../../backup/prune/retention.ts';
import type { PruneSummary, StoreSnapshot } from '../../backup/types.ts';
import { counted, formatBytes, formatCount } from '../terminal/format.ts';
import { formatTable } from '../terminal/table.ts';

/** For programs: a snapshot is its id, time and tags. */
export function groupsAsJson(groups: readonly ForgetGroup[]): Record<string, unknown>[] {
  const brief = ({ id, time, tags }: StoreSnapshot): object => ({ id, time, tags });
  return groups.map(({ host, path, tags, keep, remove }) => ({
    host,
    path,
    tags,
    keep: keep.map(({ snapshot, reasons }) => ({ ...brief(snapshot), reasons })),
    remove: remove.map(brief),
  }));
}

/** A table for each database: what is kept and why, and what is removed. */
export function describeGroups(groups: readonly ForgetGroup[], dryRun: boolean): string {
  return groups
    .map(({ keep, remove, ...key }) => {
      const fates = new Map<string, readonly [fate: string, why: string]>([
        ...keep.map(({ snapshot, reasons }) => [snapshot.id, ['keep', reasons.join(', ')]] as const),
        ...remove.map(({ id }) => [id, [dryRun ? 'would remove' : 'remove', '']] as const),
      ]);
      const rows = inOrder([...keep.map(({ snapshot }) => snapshot), ...remove]).map((snapshot) => {
        const [fate = '', why = ''] = fates.get(snapshot.id) ?? [];
        return { snapshot, fate, why };
      });
      const table = formatTable(rows, [
        { title: 'ID', cell: ({ snapshot }) => snapshot.id.slice(0, 8) },
        { title: 'Time', cell: ({ snapshot }) => formatClock(snapshot.time) },
        { title: 'Tags', cell: ({ snapshot }) => snapshot.tags.join(',') },
        { title: '', cell: ({ fate }) => fate },
        { title: 'Reasons', cell: ({ why }) => why },
      ]);
      return `${describeGroupKey(key)}: ${formatCount(keep.length)} kept, ${formatCount(remove.length)} ${dryRun ? 'to remove' : 'removed'}\n${table}`;
    })
    .join('\n\n');
}

/** Warns if a policy decided by times that the place of the store does not confirm. */
export function warnOfTimes(output: Output, groups: readonly ForgetGroup[]): void {
  const named = (snapshots: readonly StoreSnapshot[]): string => {
    const ids = snapshots.slice(0, 5).map(({ id }) => id.slice(0, 8));
    return `${counted(snapshots.length, 'snapshot')} (${ids.join(', ')}${snapshots.length > 5 ? ', …' : ''})`;
  };
  const why =
    'came to the store at another time than they record. Probably the clock of their host was wrong, or somebody copied the store as files. Else somebody may have put false snapshots: look at `sqlsync snapshots STORE`';
  const spared = groups.flatMap((group) => group.spared);
  const unconfirmed = groups.flatMap((group) => group.unconfirmed);
  const waiting = groups.flatMap((group) => group.waiting);
  if (spared.length > 0)
    output.warning(`The policy keeps ${named(spared)} more than it would, because others ${why}`);
  if (waiting.length > 0)
    output.warning(
      `Of what the policy removes, ${named(waiting)} ${why}. A backup keeps them for a week after they came; \`sqlsync forget\` with the same policy removes them at once`,
    );
  if (unconfirmed.length > 0) output.warning(`Of what the policy removes, ${named(unconfirmed)} ${why}`);
}

/** `graceSeconds`: the user's value for this run. */
export function reportPrune(output: Output, summary: PruneSummary, graceSeconds?: number): void {
  output.result(describePrune(summary, graceSeconds));
  if (summary.outOfSpace)
    output.warning(
      'The disk was too full to prune everything: run prune again, now that this run has freed some space',
    );
}

function describePrune(summary: PruneSummary, graceSeconds?: number): string {
  const {
    dryRun,
    packsDeleted,
    bytesDeleted,
    packsMarked,
    bytesMarked,
    packsWaiting,
    bytesWaiting,
    packsRepacked,
    stepsDeleted,
    outOfSpace,
  } = summary;
  const would = dryRun ? 'would be ' : '';
  const lines = [`${counted(packsDeleted, 'pack')} ${would}deleted, ${formatBytes(bytesDeleted)} freed`];
  if (stepsDeleted > 0)
    lines.push(`  ${counted(stepsDeleted, 'step')} of forgotten snapshots ${would}deleted`);
  if (packsDeleted + packsMarked + packsWaiting + stepsDeleted === 0 && !outOfSpace)
    return graceSeconds === 0
      ? 'Nothing to remove'
      : 'Nothing to remove; what was added within the grace period of the store is left alone';
  if (packsMarked > 0)
    lines.push(
      `  ${counted(packsMarked, 'pack')} (${formatBytes(bytesMarked)}) ${would}marked: a prune after the grace period deletes them`,
    );
  if (packsRepacked > 0) lines.push(`  ${formatCount(packsRepacked)} of them ${would}repacked first`);
  if (packsWaiting > 0)
    lines.push(
      `  ${counted(packsWaiting, 'pack')} (${formatBytes(bytesWaiting)}) ${packsWaiting === 1 ? 'waits' : 'wait'} for the end of the grace period`,
    );
  return lines.join('\n');
}
