import { spawn } from 'node:child_process';
import { childEnvironment } from '../jobs/run-command.ts';

/** What systemd is told: sd_notify(3). */
export interface Notifier {
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
  const notify = (...words: string[]): Promise<void> =>
    new Promise((resolve) => {
      const child = spawn('systemd-notify', words, {
        stdio: 'ignore',
        env: childEnvironment({ NOTIFY_SOCKET: socket }),
      });
      const end = (status: number | string | null): void => {
        if (status !== 0 && !isTold) onWarning(`systemd gets no reports: systemd-notify failed (${status})`);
        isTold ||= status !== 0;
        resolve();
      };
      child.once('error', (error) => end(error.message));
      child.once('close', (status) => end(status));
    });
  const timer = watchdog(env, () => void notify('WATCHDOG=1'));
  return {
    // As assignments: options for a reload and for the end came with systemd 253.
    ready: (status) => notify('READY=1', `STATUS=${status}`),
    reloading: () => notify('RELOADING=1', `MONOTONIC_USEC=${process.hrtime.bigint() / 1000n}`),
    stopping: () => notify('STOPPING=1'),
    close: () => clearInterval(timer),
  };
}

/** Reports twice in the time that systemd allows, if it watches this process. */
function watchdog(env: NodeJS.ProcessEnv, report: () => void): NodeJS.Timeout | undefined {
  const limitMs = Number(env['WATCHDOG_USEC'] ?? 0) / 1000;
  const pid = env['WATCHDOG_PID'];
  if (!(limitMs > 0) || (pid !== undefined && Number(pid) !== process.pid)) return undefined;
  return setInterval(report, limitMs / 2);
}
