/**
 * An application that embeds sqlsync, for the tests that need a process of it: it syncs as its argument says
 * (JSON), in a worker thread if `worker` is set, and prints the outcome as a line of JSON.
 */
import { isMainThread, Worker, workerData } from 'node:worker_threads';
import { sync } from '../../src/index.ts';
import type { SyncOptions } from '../../src/index.ts';

export interface ApplicationSettings extends Pick<SyncOptions, 'origin' | 'replica' | 'compress'> {
  readonly worker?: boolean;
}

const settings = (isMainThread ? JSON.parse(process.argv[2] ?? '') : workerData) as ApplicationSettings;
const { worker = false, ...options } = settings;
if (worker && isMainThread) {
  const thread = new Worker(new URL(import.meta.url), { workerData: settings });
  process.on('SIGUSR2', () => void thread.terminate().then(() => process.stdout.write('terminated\n')));
} else {
  const outcome = await sync(options).then(
    ({ outcome: name }) => name,
    (error: unknown) => String((error as { code?: string }).code ?? error),
  );
  process.stdout.write(`${JSON.stringify({ outcome })}\n`);
}
