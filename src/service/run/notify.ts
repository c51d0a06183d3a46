import { spawn } from 'node:child_process';
import { childEnvironment } from '../jobs/run-command.ts';

/** How long a report may take, in milliseconds. */
const REPORT_LIMIT_MS = 5000;

/** What systemd is told: sd_notify(3). */
export interface Notifier {
  /** Also a reload has come to its end. */
  ready(status: string): Promise<void>;
  reloading(): Promise<void>;
  stopping(): Promise<void>;
  /** Ends the reports that the service is alive. */
  close(): void;
}

const SILENT: Notifier = {
  ready: async () => {},
  reloading: async () => {},
  stopping: async () => {},
  close: () => {},
};

/**
 * Reports to systemd if that has started this process with Type=notify. Node.js cannot send a datagram to a Unix socket,
 * so `systemd-notify` does it, which wherever systemd runs is there; the unit needs NotifyAccess=all for that.
 *
 * @param onWarning - called once if the reports do not arrive.
 */
export function openNotifier(env: NodeJS.ProcessEnv, onWarning: (text: string) => void): Notifier {
  const socket = env['NOTIFY_SOCKET'];
  if (socket === undefined || socket === '') return SILENT;
  let isTold = false;
  const notify = async (...words: string[]): Promise<void> => {
    const failure = await report(socket, words);
    if (failure !== undefined && !isTold) onWarning(`systemd gets no reports: ${failure}`);
    isTold ||= failure !== undefined;
  };
  let isUnderWay = false;
  const timer = watchdog(env, () => {
    if (isUnderWay) return;
    isUnderWay = true;
    void notify('WATCHDOG=1').finally(() => (isUnderWay = false));
  });
  return {
    // As assignments: options for a reload and for the end came with systemd 253.
    ready: (status) => notify('READY=1', `STATUS=${status}`),
    reloading: () => notify('RELOADING=1', `MONOTONIC_USEC=${process.hrtime.bigint() / 1000n}`),
    stopping: () => notify('STOPPING=1'),
    close: () => clearInterval(timer),
  };
}

/** Resolves to what went wrong; never rejects. */
function report(socket: string, words: readonly string[]): Promise<string | undefined> {
  const { promise, resolve } = Promise.withResolvers<string | undefined>();
  try {
    const child = spawn('systemd-notify', words, {
      stdio: 'ignore',
      env: childEnvironment({ NOTIFY_SOCKET: socket }),
      // Nobody may read from the socket.
      timeout: REPORT_LIMIT_MS,
    });
    child.once('error', (error) => resolve(error.message));
    child.once('close', (status, by) =>
      resolve(status === 0 ? undefined : `systemd-notify failed (${status ?? by})`),
    );
  } catch (error) {
    resolve(String(error));
  }
  return promise;
}

/** Reports twice in the time that systemd allows, if it watches this process. */
function watchdog(env: NodeJS.ProcessEnv, sign: () => void): NodeJS.Timeout | undefined {
  const limitMs = Number(env['WATCHDOG_USEC'] ?? 0) / 1000;
  const pid = env['WATCHDOG_PID'];
  if (!(limitMs > 0) || (pid !== undefined && Number(pid) !== process.pid)) return undefined;
  return setInterval(sign, limitMs / 2);
}
