import type { Report } from '../doctor/finding.ts';
import { SqlsyncError } from '../errors.ts';
import { runOwnCommand } from './own-command.ts';
import type { DatabaseStats, Inspection } from './types.ts';

const WRITER_LOCKS = new Set(['WRITE', 'RESERVED', 'PENDING', 'EXCLUSIVE']);

/** A report takes half a second, and seconds with thousands of processes. */
const PATIENCE_MS = 60_000;

/**
 * What `sqlsync doctor` finds about the database at `path`, in a child process: looking at the files here would drop
 * the locks of the pools. `stats` gives the labels of this process. Throws SqlsyncError.
 */
export async function inspectDatabase(path: string, stats: () => DatabaseStats): Promise<Inspection> {
  const beganMs = performance.now();
  const before = stats().write.holder;
  const { facts, findings } = await sharedReport(path);
  // Before the look at the pools: a pause between the two must not make the transaction look younger than the report.
  const tookMs = performance.now() - beganMs;
  const { write, read } = stats();
  const { holder } = write;
  // Another transaction of the same label may have followed the one that doctor saw.
  const isSame = holder?.label === before?.label && (holder?.forMs ?? 0) + 1 >= tookMs;
  return {
    facts,
    findings,
    write: { holder, waiting: write.waiting },
    read: { holders: read.holders, waiting: read.waiting },
    writer: writerInWords(facts, isSame ? holder?.label : undefined),
  };
}

/** The reports that are being made: a page that is loaded again and again starts one process. */
const underWay = new Map<string, Promise<Report>>();

/** A report that was begun earlier may show a state from before this call. */
function sharedReport(path: string): Promise<Report> {
  const known = underWay.get(path);
  if (known !== undefined) return known;
  const report = askDoctor(path).finally(() => underWay.delete(path));
  underWay.set(path, report);
  return report;
}

async function askDoctor(path: string): Promise<Report> {
  const { status, last, error } = await runOwnCommand(['doctor', '--json', '--', path], PATIENCE_MS);
  // Findings have a status of their own.
  if ((status === 0 || status === 1) && last !== undefined) return last as Report;
  const why = (last as { message?: string } | undefined)?.message ?? String(error);
  throw new SqlsyncError('SYSTEM_ERROR', `${path} could not be inspected: ${why}`, {
    hint: 'Run sqlsync doctor on it by hand.',
    cause: error,
  });
}

/** The process that holds the writer's lock, with the label of the work if that is in this process. */
function writerInWords(facts: Report['facts'], label: string | undefined): Inspection['writer'] {
  const lock = facts.locks.find(({ name, isExclusive }) => isExclusive && WRITER_LOCKS.has(name));
  if (lock === undefined) return undefined;
  const command = facts.processes.find(({ pid }) => pid === lock.pid)?.command;
  const isHere = lock.pid === process.pid;
  return {
    pid: lock.pid,
    ...(command === undefined ? {} : { command }),
    ...(isHere && label !== undefined ? { label } : {}),
  };
}
