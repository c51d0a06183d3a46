import { execFileSync } from 'node:child_process';
import { cpus, release, totalmem, type } from 'node:os';
import type { BenchCase } from './data.ts';
import { median } from './measure.ts';
import type { Measured } from './measure.ts';

/** The last line that `sqlsync --json` writes, as far as the report uses it. */
export interface SyncSummary {
  type: 'summary';
  pageSize: number;
  pageCount: number;
  pagesTransferred: number;
  bytesSent: number;
  bytesReceived: number;
  durationMs: number;
  snapshotHeldMs: number;
  walGrowthBytes: number;
}

export interface Comparison {
  label: string;
  command: string;
  args: (origin: string, target: string) => string[];
  /** It starts from a copy of the replica; the others write a file that is not there yet. */
  updates: boolean;
}

export type ComparisonName = 'backup' | 'vacuum-into' | 'cp' | 'dd' | 'rsync';

export const COMPARISONS: Record<ComparisonName, Comparison> = {
  backup: {
    label: '`sqlite3 .backup`',
    command: 'sqlite3',
    args: (origin, target) => [origin, `.backup ${quote(target)}`],
    updates: false,
  },
  'vacuum-into': {
    label: '`VACUUM INTO`',
    command: 'sqlite3',
    args: (origin, target) => [origin, `VACUUM INTO ${quote(target)}`],
    updates: false,
  },
  cp: { label: '`cp`', command: 'cp', args: (origin, target) => [origin, target], updates: false },
  dd: {
    label: '`dd conv=fsync`',
    command: 'dd',
    args: (origin, target) => [`if=${origin}`, `of=${target}`, 'bs=1M', 'conv=fsync'],
    updates: false,
  },
  rsync: {
    label: '`rsync --inplace`',
    command: 'rsync',
    args: (origin, target) => ['--inplace', '--no-whole-file', origin, target],
    updates: true,
  },
};

export interface Round {
  sync: (Measured & { summary: SyncSummary }) | undefined;
  /** Seconds. */
  others: Partial<Record<ComparisonName, number>>;
}

export interface CaseResult {
  benchCase: BenchCase;
  rounds: readonly Round[];
}

export interface ReportOptions {
  rows: number;
  runs: number;
  comparisons: readonly ComparisonName[];
  command: string;
}

/** The results as Markdown: medians of all rounds. */
export function renderReport(results: readonly CaseResult[], options: ReportOptions): string {
  const { comparisons } = options;
  const header = [
    'case',
    'pages',
    'pages sent',
    'sent MB',
    'received MB',
    'sqlsync s',
    ...comparisons.flatMap((name) => [`${COMPARISONS[name].label} s`, 'ratio']),
    'snapshot held s',
    'near peak MB',
    'far peak MB',
  ];
  return `# Benchmark results

${[
  ...machine(),
  `Database: ${options.rows.toLocaleString('en')} rows, made by bench/data.ts`,
  `Command: \`${options.command}\``,
]
  .map((line) => `- ${line}`)
  .join('\n')}

Medians of ${options.runs} rounds. In each round every tool runs once, sqlsync on a fresh copy of the replica; files are in the page
cache. Seconds are from the start of the process to its exit. "sent" and "received" are all bytes that cross the wire, as the near agent
counts them (MB = 10^6 bytes). A ratio below 1 means that sqlsync is faster: the median of the ratios within the rounds. Peaks are
resident memory; near is the process that the user starts, far is the largest process that it starts in turn.

${table([header, ...results.map((result) => row(result, comparisons))])}

${results.map(({ benchCase }) => `- **${benchCase.name}**: ${benchCase.description}`).join('\n')}
`;
}

function row({ benchCase, rounds }: CaseResult, comparisons: readonly ComparisonName[]): string[] {
  const syncs = rounds.flatMap(({ sync }) => (sync === undefined ? [] : [sync]));
  const medianOf = (
    value: (sync: (typeof syncs)[number]) => number | undefined,
    scale: number,
    digits: number,
  ): string => {
    const values = syncs.map(value).filter((known) => known !== undefined);
    return values.length === 0 ? '–' : (median(values) / scale).toFixed(digits);
  };
  const compared = comparisons.flatMap((name) => {
    const pairs = rounds.map(({ sync, others }) => [sync?.seconds ?? NaN, others[name] ?? NaN] as const);
    return [
      median(pairs.map(([, other]) => other)).toFixed(2),
      median(pairs.map(([own, other]) => own / other)).toFixed(2),
    ];
  });
  return [
    benchCase.name,
    medianOf((sync) => sync.summary.pageCount, 1, 0),
    medianOf((sync) => sync.summary.pagesTransferred, 1, 0),
    medianOf((sync) => sync.summary.bytesSent, 1e6, 3),
    medianOf((sync) => sync.summary.bytesReceived, 1e6, 3),
    medianOf((sync) => sync.seconds, 1, 2),
    ...compared,
    medianOf((sync) => sync.summary.snapshotHeldMs, 1000, 2),
    medianOf((sync) => sync.peakBytes, 1e6, 0),
    medianOf((sync) => sync.childPeakBytes, 1e6, 0),
  ];
}

function machine(): string[] {
  const shell = execFileSync('sqlite3', ['-version'], { encoding: 'utf8' }).split(' ')[0] ?? '';
  const [cpu] = cpus();
  return [
    `${new Date().toISOString().slice(0, 10)}, ${cpus().length} cores (${cpu?.model.trim() ?? 'unknown'}), ` +
      `${(totalmem() / 2 ** 30).toFixed(0)} GiB of memory, ${type()} ${release()}`,
    `Node ${process.versions.node}, sqlite3 shell ${shell}`,
  ];
}

function table(rows: readonly (readonly string[])[]): string {
  const widths = (rows[0] ?? []).map((_, column) =>
    Math.max(...rows.map((cells) => cells[column]?.length ?? 0), 3),
  );
  const line = (cells: readonly string[]): string =>
    `| ${cells.map((cell, column) => (column === 0 ? cell.padEnd(widths[0] ?? 0) : cell.padStart(widths[column] ?? 0))).join(' | ')} |`;
  const rule = `| ${widths.map((width, column) => (column === 0 ? '-'.repeat(width) : `${'-'.repeat(width - 1)}:`)).join(' | ')} |`;
  const [header = [], ...body] = rows;
  return [line(header), rule, ...body.map(line)].join('\n');
}

function quote(text: string): string {
  return `'${text.replaceAll("'", "''")}'`;
}
