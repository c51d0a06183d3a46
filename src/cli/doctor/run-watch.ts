import { closeSync, existsSync, openSync, readSync, writeSync } from 'node:fs';
import { SqlsyncError, sanitizeText, systemErrorCode } from '../../errors.ts';
import { RecordSums } from '../../doctor/watch/explain.ts';
import type { WatchSummary } from '../../doctor/watch/explain.ts';
import type { WatchLine } from '../../doctor/watch/log.ts';
import { readLines } from '../../doctor/watch/log.ts';
import { watchDatabase } from '../../sync/runs/watch.ts';
import type { RunOptions } from '../../sync/runs/run-options.ts';
import { EXIT_OK } from '../terminal/exit.ts';
import type { Output } from '../terminal/output.ts';
import { cutToColumns } from '../terminal/wrap.ts';
import { presentExplanation } from './present-explanation.ts';
import { WatchScreen } from './watch-screen.ts';

const HOME_AND_CLEAR = '\u001b[H\u001b[J';

export interface WatchArguments {
  readonly database: string;
  readonly intervalMs: number;
  readonly record: string | undefined;
}

/** Watches until Ctrl-C or the time limit, then sums up; returns the exit status. */
export async function runWatch(
  { database, intervalMs, record }: WatchArguments,
  output: Output,
  options: RunOptions & { readonly until: AbortSignal },
): Promise<number> {
  if (record !== undefined && existsSync(record)) throw recordRefused(record, 'exists already');
  let file: number | undefined;
  const screen = new WatchScreen(database);
  const sums = new RecordSums();
  try {
    await watchDatabase(database, {
      ...options,
      intervalMs,
      onLine(line) {
        sums.add(line);
        if (record !== undefined) writeLine((file ??= createRecord(record)), line);
        output.json({ ...line });
        screen.add(line);
        if (line.type === 'sample') show(screen, output);
      },
    });
  } finally {
    if (file !== undefined) closeSync(file);
  }
  return tell(sums.summary(), output);
}

/** `--explain`: sums up a record; returns the exit status. */
export function runExplain(record: string, output: Output): number {
  const sums = new RecordSums();
  try {
    for (const line of readLines(linesOf(record), record)) sums.add(line);
  } catch (error) {
    if (error instanceof SqlsyncError) throw error;
    throw new SqlsyncError('USAGE', `${sanitizeText(record, 200)} cannot be read: ${String(error)}`, {
      hint: 'Name a file that sqlsync doctor --watch --record has made.',
      cause: error,
    });
  }
  return tell(sums.summary(), output);
}

function tell(summary: WatchSummary, output: Output): number {
  output.json({ type: 'summary', ...summary });
  output.result(presentExplanation(summary));
  return EXIT_OK;
}

function show(screen: WatchScreen, output: Output): void {
  const { json, verbosity } = output.options;
  if (json || verbosity === 'quiet') return;
  if (!process.stdout.isTTY) return output.result(screen.line());
  const { columns, rows } = process.stdout;
  const shown = screen
    .lines()
    .slice(0, (rows || 24) - 1)
    .map((line) => cutToColumns(line, (columns || 80) - 1));
  process.stdout.write(`${HOME_AND_CLEAR}${shown.join('\n')}\n`);
}

/** Never over a file that is there: it may be the database. Command lines may have passwords. */
function createRecord(record: string): number {
  try {
    return openSync(record, 'wx', 0o600);
  } catch (error) {
    const isThere = systemErrorCode(error) === 'EEXIST';
    throw recordRefused(record, isThere ? 'exists already' : `cannot be made: ${String(error)}`, error);
  }
}

function recordRefused(record: string, why: string, cause?: unknown): SqlsyncError {
  return new SqlsyncError('USAGE', `--record: ${sanitizeText(record, 200)} ${why}`, {
    hint: 'Name a file that does not exist, in a folder that may be written.',
    cause,
  });
}

/** One write may take a part of a line, as on a disk that gets full. */
function writeLine(file: number, line: WatchLine): void {
  const bytes = Buffer.from(`${JSON.stringify(line)}\n`);
  for (let written = 0; written < bytes.length;) written += writeSync(file, bytes, written);
}

const CHUNK_BYTES = 1024 * 1024;

/** The lines of a file of any size; the last one only if it has its end. Throws the system's errors. */
function* linesOf(path: string): Generator<string> {
  const file = openSync(path, 'r');
  try {
    const chunk = Buffer.alloc(CHUNK_BYTES);
    let rest = Buffer.alloc(0);
    for (;;) {
      const length = readSync(file, chunk, 0, CHUNK_BYTES, null);
      if (length === 0) return;
      rest = Buffer.concat([rest, chunk.subarray(0, length)]);
      let from = 0;
      for (let end = rest.indexOf(10); end !== -1; end = rest.indexOf(10, from)) {
        yield rest.toString('utf8', from, end);
        from = end + 1;
      }
      rest = rest.subarray(from);
    }
  } finally {
    closeSync(file);
  }
}
