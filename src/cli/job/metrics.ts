import { randomBytes } from 'node:crypto';
import { readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { systemErrorCode } from '../../errors.ts';

/** The figures of one copy by a successful run; sizes in bytes. */
export interface CopyFigures {
  /** The copy holds everything that was committed by then, in milliseconds since 1970. */
  readonly snapshotAtMs: number;
  readonly snapshotHeldMs: number;
  readonly bytesSent: number;
  readonly bytesReceived: number;
  readonly pageSize: number;
  readonly pageCount: number;
  readonly pagesChanged: number;
  readonly walGrowthBytes: number;
}

/** The last run of one copy. */
export interface CopyRun {
  /** Identify the copy. */
  readonly labels: Readonly<Record<string, string>>;
  readonly endedAtMs: number;
  readonly durationMs: number;
  readonly exitStatus: number;
  /** undefined for a run that failed, and for one that copies nothing. */
  readonly figures: CopyFigures | undefined;
}

/** Metrics by name, with their help texts; all are gauges. */
const METRICS = {
  sqlsync_last_run_timestamp_seconds: 'When the last run ended.',
  sqlsync_last_run_duration_seconds: 'How long the last run took.',
  sqlsync_last_run_exit_status: 'Exit status of the last run; 0 is success.',
  sqlsync_last_success_timestamp_seconds: 'When the last successful run ended.',
  sqlsync_last_failure_timestamp_seconds: 'When the last run that failed ended.',
  sqlsync_snapshot_timestamp_seconds: 'The copy holds all that was committed in the origin by then.',
  sqlsync_snapshot_held_seconds: 'How long the last successful run held its snapshot of the origin.',
  sqlsync_sent_bytes: 'Bytes sent by the last successful run.',
  sqlsync_received_bytes: 'Bytes received by the last successful run.',
  sqlsync_database_bytes: 'Size of the database that was copied.',
  sqlsync_database_pages: 'Pages of the database that was copied.',
  sqlsync_changed_pages: 'Pages that differed in the last successful run.',
  sqlsync_wal_growth_bytes: 'Growth of the WAL of the origin while the snapshot was held.',
} as const;

type MetricName = keyof typeof METRICS;

/** A metric with the labels of one copy, as the text format writes it. */
type Series = string;

/**
 * Puts the metrics of a run into the file for the textfile collector of Prometheus' node exporter, by an atomic rename.
 * After a failed run it keeps those values from the file that only a success sets. Returns the names of other copies'
 * series that were in the file and are gone now. Throws what the file system throws, and for a file of another kind.
 */
export function writeMetrics(path: string, runs: readonly CopyRun[]): string[] {
  const old = readMetrics(path);
  const values = new Map<Series, number>();
  const ours = new Set<string>();
  for (const run of runs) {
    const labels = formatLabels(run.labels);
    ours.add(labels);
    const fresh = valuesOf(run);
    for (const name of Object.keys(METRICS) as MetricName[]) {
      const value = fresh[name] ?? old.get(`${name}${labels}`);
      if (value !== undefined) values.set(`${name}${labels}`, value);
    }
  }
  const others = new Set([...old.keys()].map((series) => series.slice(series.indexOf('{'))));
  replaceFile(path, formatMetrics(values));
  return [...others].filter((labels) => !ours.has(labels));
}

/** The text format, version 0.0.4. */
function formatMetrics(values: ReadonlyMap<Series, number>): string {
  const lines: string[] = [];
  for (const [name, help] of Object.entries(METRICS)) {
    const series = [...values].filter(([each]) => each.startsWith(`${name}{`));
    if (series.length === 0) continue;
    lines.push(`# HELP ${name} ${help}`, `# TYPE ${name} gauge`);
    for (const [each, value] of series) lines.push(`${each} ${value}`);
  }
  return `${lines.join('\n')}\n`;
}

function formatLabels(labels: Readonly<Record<string, string>>): string {
  const pairs = Object.entries(labels).map(([name, value]) => `${name}="${escapeLabel(value)}"`);
  return `{${pairs.join(',')}}`;
}

function escapeLabel(value: string): string {
  return value
    .toWellFormed()
    .replaceAll('\\', String.raw`\\`)
    .replaceAll('"', String.raw`\"`)
    .replaceAll('\n', String.raw`\n`);
}

function valuesOf(run: CopyRun): Partial<Record<MetricName, number>> {
  const { figures, exitStatus } = run;
  const endedAt = run.endedAtMs / 1000;
  const always = {
    sqlsync_last_run_timestamp_seconds: endedAt,
    sqlsync_last_run_duration_seconds: run.durationMs / 1000,
    sqlsync_last_run_exit_status: exitStatus,
  };
  if (figures === undefined) {
    return exitStatus === 0
      ? { ...always, sqlsync_last_success_timestamp_seconds: endedAt }
      : { ...always, sqlsync_last_failure_timestamp_seconds: endedAt };
  }
  return {
    ...always,
    sqlsync_last_success_timestamp_seconds: endedAt,
    sqlsync_snapshot_timestamp_seconds: figures.snapshotAtMs / 1000,
    sqlsync_snapshot_held_seconds: figures.snapshotHeldMs / 1000,
    sqlsync_sent_bytes: figures.bytesSent,
    sqlsync_received_bytes: figures.bytesReceived,
    sqlsync_database_bytes: figures.pageSize * figures.pageCount,
    sqlsync_database_pages: figures.pageCount,
    sqlsync_changed_pages: figures.pagesChanged,
    sqlsync_wal_growth_bytes: figures.walGrowthBytes,
  };
}

/** A file that an earlier run wrote has such lines, and so has one that is damaged. */
const METRICS_FILE = /^(?!SQLite format 3)(?:\s*$|[^]*?(?<![^\n])(?:# HELP )?sqlsync_)/;

/**
 * The values that an earlier run wrote; ignores lines of other programs. Throws if the file is none of metrics: a slip
 * of the hand may name a database.
 */
function readMetrics(path: string): Map<Series, number> {
  let text = '';
  try {
    text = readFileSync(path, 'utf8');
  } catch (error) {
    if (systemErrorCode(error) !== 'ENOENT') throw error;
  }
  if (!METRICS_FILE.test(text))
    throw new Error(`${path} exists, and is no metrics file; it is left as it is`);
  const values = new Map<Series, number>();
  for (const line of text.split('\n')) {
    const [, series, name, value] = /^((sqlsync_\w+)\{[^\n]*\}) (\S+)$/.exec(line) ?? [];
    if (series === undefined || !Object.hasOwn(METRICS, name as string)) continue;
    if (Number.isFinite(Number(value))) values.set(series, Number(value));
  }
  return values;
}

/** The collector reads all files that end in .prom at any moment: the temporary file does not end so. */
function replaceFile(path: string, text: string): void {
  const temporary = join(dirname(path), `.${basename(path)}.${randomBytes(6).toString('hex')}`);
  try {
    writeFileSync(temporary, text, { flag: 'wx', mode: 0o644 });
    renameSync(temporary, path);
  } catch (error) {
    rmSync(temporary, { force: true });
    throw error;
  }
}
