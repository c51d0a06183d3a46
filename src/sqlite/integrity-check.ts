import { once } from 'node:events';
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads';
import { openRaw } from './binding.ts';
import { databaseUri } from './database-uri.ts';

/** What the thread is told; the key keeps other threads that load this module from checking anything. */
interface CheckStart {
  readonly integrityCheckOf: string;
  readonly timeoutMs: number;
}

/**
 * What `PRAGMA integrity_check` finds wrong with a database, at most 100 sentences; none where it is sound. A check that
 * could not be made is a finding too. Runs in a thread of its own, since it may take minutes, and reads only. Never
 * rejects. `path` is absolute; `timeoutMs` is how long to wait for locks.
 */
export async function integrityFindings(
  path: string,
  timeoutMs: number,
  signal?: AbortSignal,
): Promise<string[]> {
  const start: CheckStart = { integrityCheckOf: path, timeoutMs };
  const worker = new Worker(new URL(import.meta.url), { workerData: start });
  try {
    const [findings] = (await once(worker, 'message', signal === undefined ? {} : { signal })) as [string[]];
    return findings;
  } catch (error) {
    return [`integrity_check could not be made: ${error instanceof Error ? error.message : String(error)}`];
  } finally {
    await worker.terminate();
  }
}

function check({ integrityCheckOf: path, timeoutMs }: CheckStart): string[] {
  const database = openRaw(databaseUri(path, { mode: 'ro' }), {
    readonly: true,
    fileMustExist: true,
    timeout: timeoutMs,
  });
  try {
    const rows = database.pragma('integrity_check') as { integrity_check: string }[];
    const findings = rows.map((row) => row.integrity_check);
    return findings.length === 1 && findings[0] === 'ok' ? [] : findings;
  } catch (error) {
    // A schema that SQLite cannot parse, or a page 1 that is none.
    return [error instanceof Error ? error.message : String(error)];
  } finally {
    database.close();
  }
}

if (
  !isMainThread &&
  typeof workerData === 'object' &&
  workerData !== null &&
  'integrityCheckOf' in workerData
) {
  // oxlint-disable-next-line unicorn/require-post-message-target-origin -- a thread, not a window
  parentPort?.postMessage(check(workerData as CheckStart));
}
