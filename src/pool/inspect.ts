import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import type { Report } from '../doctor/finding.ts';
import { SqlsyncError } from '../errors.ts';
import { commandPath } from '../sync/program.ts';
import type { DatabaseStats, Inspection } from './types.ts';

const WRITER_LOCKS = new Set(['WRITE', 'RESERVED', 'PENDING', 'EXCLUSIVE']);

/** The facts of a database with thousands of processes and tables. */
const MAX_OUTPUT_BYTES = 64 * 1024 * 1024;

/**
 * What `sqlsync doctor` finds about the database at `path`, in a child process: looking at the files here would drop
 * the locks of the pools. `stats` gives the labels of this process. Throws SqlsyncError.
 */
export async function inspectDatabase(path: string, stats: () => DatabaseStats): Promise<Inspection> {
  const { facts, findings } = await askDoctor(path);
  const { write, read } = stats();
  const { holder } = write;
  return {
    facts,
    findings,
    write: { holder, waiting: write.waiting },
    read: { holders: read.holders, waiting: read.waiting },
    writer: writerInWords(facts, holder?.label),
  };
}

async function askDoctor(path: string): Promise<Report> {
  const env = { ...process.env };
  // The application's own options, such as --inspect-brk, are not for the child.
  delete env['NODE_OPTIONS'];
  const args = [commandPath(), 'doctor', '--json', '--', path];
  const { stdout } = await promisify(execFile)(process.execPath, args, {
    encoding: 'utf8',
    maxBuffer: MAX_OUTPUT_BYTES,
    windowsHide: true,
    env,
  }).catch((error: unknown) => {
    // Findings have a status of their own.
    const { code, stdout: output = '' } = error as { code?: unknown; stdout?: string };
    if (code === 1) return { stdout: output };
    throw failure(path, error);
  });
  const last = stdout.trimEnd().split('\n').at(-1) ?? '';
  try {
    return JSON.parse(last) as Report;
  } catch (error) {
    throw failure(path, error);
  }
}

function failure(path: string, cause: unknown): SqlsyncError {
  const said = (cause as { stdout?: string }).stdout?.trimEnd().split('\n').at(-1) ?? '';
  const why = /"message":"((?:[^"\\]|\\.)*)"/.exec(said)?.[1] ?? String(cause);
  return new SqlsyncError('SYSTEM_ERROR', `${path} could not be inspected: ${why}`, {
    hint: 'Run sqlsync doctor on it by hand.',
    cause,
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
