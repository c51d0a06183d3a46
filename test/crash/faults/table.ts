import type { FaultRow } from './group.ts';

const COLUMNS = ['group', 'fault', 'times', 'outcome'] as const;

/** A Markdown table of the faults and their outcomes. */
export function faultTable(rows: readonly (FaultRow & { readonly group: string })[]): string {
  const cells = rows.map(({ group, fault, times, outcomes }) => [
    group,
    fault,
    times.toLocaleString('en-US'),
    describeOutcomes(outcomes),
  ]);
  const lines = [[...COLUMNS], COLUMNS.map(() => '---'), ...cells];
  const widths = COLUMNS.map((_, column) => Math.max(...lines.map((line) => (line[column] ?? '').length)));
  return lines
    .map((line) => `| ${line.map((cell, column) => cell.padEnd(widths[column] ?? 0)).join(' | ')} |`)
    .join('\n');
}

function describeOutcomes(outcomes: FaultRow['outcomes']): string {
  return Object.entries(outcomes)
    .sort(([, a], [, b]) => b - a)
    .map(([outcome, times]) => `${outcome} ${times}`)
    .join(', ');
}
