/**
 * The program of the process that checkIntegrity starts, and of its thread. It is a separate module, so that a program
 * that loads the check does not run it.
 */
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads';
import { openRaw } from '../binding.ts';
import { databaseUri } from '../database-uri.ts';
import type { CheckStart, IntegrityResult } from './integrity-check.ts';
import { measureParts } from './database-parts.ts';
import { findIntegrityFaults } from './integrity-findings.ts';

/** The process. Its main thread stays free to notice that its parent is gone. */
function runProcess(): void {
  process.once('disconnect', () => process.kill(process.pid, 'SIGKILL'));
  process.once('message', (start: CheckStart) => {
    const worker = new Worker(new URL(import.meta.url), { workerData: start });
    const report = (result: IntegrityResult): void => void process.send?.(result, () => process.exit());
    worker.once('message', report);
    worker.once('error', (error) =>
      report({ made: false, why: error instanceof Error ? error.message : String(error) }),
    );
  });
}

/** Throws if the file cannot be opened. */
function check({ integrityCheckOf: path, timeoutMs, immutable, withParts }: CheckStart): IntegrityResult {
  const database = openRaw(databaseUri(path, { mode: 'ro', immutable }), {
    readonly: true,
    fileMustExist: true,
    timeout: timeoutMs,
  });
  try {
    if (!withParts) return { made: true, ...findIntegrityFaults(database) };
    // One state of the database for all of it.
    database.exec('BEGIN');
    return { made: true, ...findIntegrityFaults(database), parts: measureParts(database) };
  } catch (error) {
    return { made: false, why: error instanceof Error ? error.message : String(error) };
  } finally {
    database.close();
  }
}

if (isMainThread) runProcess();
// oxlint-disable-next-line unicorn/require-post-message-target-origin -- a thread, not a window
else parentPort?.postMessage(check(workerData as CheckStart));
