const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;

/** Set for a command that ends when the process that started it does: their IPC channel closes then. */
export const LIFELINE = 'SQLSYNC_LIFELINE';

/**
 * Runs `work` with a signal that aborts when the process is asked to end. The work gets time to clean up and to end its
 * agents; a second signal of the same kind ends the process as usual.
 */
export async function withInterruption<T>(work: (signal: AbortSignal) => Promise<T>): Promise<T> {
  const controller = new AbortController();
  const onSignal = (name: NodeJS.Signals): void => {
    process.removeListener(name, onSignal);
    controller.abort();
  };
  for (const name of SIGNALS) process.on(name, onSignal);
  const onDisconnect = (): void => controller.abort();
  if (process.env[LIFELINE] !== undefined && process.channel !== undefined)
    if (process.connected) process.once('disconnect', onDisconnect);
    else controller.abort();
  try {
    return await work(controller.signal);
  } finally {
    process.removeListener('disconnect', onDisconnect);
    for (const name of SIGNALS) process.removeListener(name, onSignal);
  }
}
