import type { CaseName } from './data.ts';
import { medianOf } from './rounds.ts';
import type { CaseResult, Round } from './rounds.ts';
import { figure, megabytes, table } from './results.ts';
import type { Tool } from './tools.ts';

/**
 * The target of a sync of 1.05 GB, local to local: wall time as a ratio to `.backup`, and bytes on the wire.
 */
const TARGETS: Record<CaseName, { ratio: number; wireBytes: number }> = {
  untouched: { ratio: 0.15, wireBytes: 10e3 },
  identical: { ratio: 0.4, wireBytes: 10e3 },
  update364: { ratio: 0.5, wireBytes: 200e3 },
  update1pct: { ratio: 1.1, wireBytes: 10e6 },
  insert1pct: { ratio: 1.1, wireBytes: 28e6 },
  delete1pct: { ratio: 1.4, wireBytes: 20e6 },
  vacuum: { ratio: 3, wireBytes: 1.04e9 },
  new: { ratio: 1, wireBytes: 1.06e9 },
};

export function wireBytesOf({ sync: { summary } }: Round): number {
  return summary.bytesSent + summary.bytesReceived;
}

export function ratioTo(rounds: readonly Round[], name: string): number | undefined {
  return medianOf(rounds, ({ sync, tools }) => {
    const tool = tools[name];
    return tool && sync.seconds / tool.seconds;
  });
}

/** The figures of sqlsync itself, with `targets` if they are meant for these databases. */
export function syncTable(results: readonly CaseResult[], targets: boolean): string {
  const header = ['case', 's', ...(targets ? ['of `.backup`', 'target'] : []), 'CPU s', 'wire MB'];
  if (targets) header.push('target');
  header.push('pages', 'pages sent', 'snapshot s', 'near MB', 'far MB');
  const body = results.map(({ benchCase: { name }, rounds }) => {
    const { ratio, wireBytes } = TARGETS[name];
    return [
      name,
      seconds(rounds),
      ...(targets ? [figure(ratioTo(rounds, 'backup'), 2), `≤ ${ratio}`] : []),
      figure(
        medianOf(rounds, ({ sync }) => sync.cpuSeconds),
        2,
      ),
      megabytes(medianOf(rounds, wireBytesOf)),
      ...(targets ? [`≤ ${wireBytes / 1e6}`] : []),
      figure(
        medianOf(rounds, ({ sync }) => sync.summary.pageCount),
        0,
      ),
      figure(
        medianOf(rounds, ({ sync }) => sync.summary.pagesTransferred),
        0,
      ),
      figure(
        medianOf(rounds, ({ sync }) => sync.summary.snapshotHeldMs / 1000),
        2,
      ),
      peak(rounds, ({ sync }) => sync.peakBytes),
      peak(rounds, ({ sync }) => sync.childPeakBytes),
    ];
  });
  return table(header, body);
}

/** The seconds of sqlsync and of the other tools side by side. */
export function comparisonTable(results: readonly CaseResult[], tools: readonly Tool[]): string {
  const header = ['case', 'sqlsync s', ...tools.flatMap(({ label }) => [`${label} s`, 'ratio'])];
  const withWire = tools.filter((tool) => tool.wireBytes !== undefined);
  header.push('sqlsync wire MB', ...withWire.map(({ label }) => `${label} wire MB`));
  const body = results.map(({ benchCase, rounds }) => [
    benchCase.name,
    seconds(rounds),
    ...tools.flatMap(({ name }) => [
      figure(
        medianOf(rounds, (round) => round.tools[name]?.seconds),
        2,
      ),
      figure(ratioTo(rounds, name), 2),
    ]),
    megabytes(medianOf(rounds, (round) => round.sync.linkBytes ?? wireBytesOf(round))),
    ...withWire.map(({ name }) => megabytes(medianOf(rounds, (round) => round.tools[name]?.wireBytes))),
  ]);
  return table(header, body);
}

export function caseList(results: readonly CaseResult[]): string {
  return results.map(({ benchCase }) => `- **${benchCase.name}**: ${benchCase.description}`).join('\n');
}

export function seconds(rounds: readonly Round[]): string {
  return figure(
    medianOf(rounds, ({ sync }) => sync.seconds),
    2,
  );
}

function peak(rounds: readonly Round[], value: (round: Round) => number | undefined): string {
  const bytes = medianOf(rounds, value);
  return figure(bytes && bytes / 1e6, 0);
}
