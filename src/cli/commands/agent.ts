import { toSqlsyncError } from '../../errors.ts';
import { runFarAgent } from '../../sync/far-agent.ts';
import { DEFAULT_IDLE_TIMEOUT_MS } from '../../sync/sync.ts';
import type { Transport } from '../../transport/transport.ts';
import { EXIT_OK, exitStatusOf } from '../exit.ts';

/**
 * `sqlsync agent`: the far side, on stdin and stdout. Errors travel to the near side as messages, and are not
 * printed here.
 */
export async function runAgentCommand(): Promise<number> {
  const controller = new AbortController();
  // Ctrl-C at the near side's terminal reaches its whole process group; the near side ends the conversation itself.
  process.on('SIGINT', () => {});
  for (const signal of ['SIGTERM', 'SIGHUP'] as const) process.on(signal, () => controller.abort());
  try {
    await runFarAgent(standardStreams(), {
      idleTimeoutMs: DEFAULT_IDLE_TIMEOUT_MS,
      signal: controller.signal,
    });
    return EXIT_OK;
  } catch (error) {
    return exitStatusOf(toSqlsyncError(error).code);
  } finally {
    process.stdin.destroy();
  }
}

function standardStreams(): Transport {
  return {
    description: 'the near side',
    input: process.stdin,
    output: process.stdout,
    exited: Promise.resolve({ status: null, signal: null, stderr: '' }),
    terminate: () => process.stdin.destroy(),
  };
}
