import { fstatSync } from 'node:fs';
import { toSqlsyncError } from '../../errors.ts';
import type { SqlsyncError } from '../../errors.ts';
import { refuseToServe, runFarAgent } from '../../sync/agents/far-agent.ts';
import { Restriction } from '../../sync/request/restriction.ts';
import { DEFAULT_IDLE_TIMEOUT_MS } from '../../sync/runs/run-options.ts';
import { freeChunk } from '../../transport/chunk-memory.ts';
import type { Transport } from '../../transport/transport.ts';
import { EXIT_OK, exitStatusOf } from '../terminal/exit.ts';
import { parseDuration } from '../options/quantities.ts';
import { RESTRICTION_OPTIONS, restrictionOf } from '../options/restriction.ts';
import { defineCommand } from '../options/command.ts';
import type { Command, OptionValues } from '../options/command.ts';

/** For a forced command in authorized_keys. */
const OWN_OPTIONS = {
  restrict: { value: 'DIR', describe: 'Only databases inside this folder' },
  timeout: { value: 'T', describe: 'Time that the other side may take to say what it wants' },
  'max-time': { value: 'T', describe: 'Time that one database may take, even if the other side allows more' },
} as const;

type Arguments = Partial<OptionValues<typeof OWN_OPTIONS> & OptionValues<typeof RESTRICTION_OPTIONS>>;

/** How long the last message may take to leave: a connection that was given up may take none. */
const LAST_WORDS_MS = 2000;

/**
 * `sqlsync agent`: the far side, on stdin and stdout. Errors travel to the near side as messages, and are not printed
 * here. As the forced command of a key it is the only program that the key can start: it ignores the command that the
 * client asks sshd to run (SSH_ORIGINAL_COMMAND). Throws SqlsyncError USAGE.
 */
export async function runAgentCommand(args: Arguments): Promise<number> {
  const given = restrictionOf(args);
  const restriction = given === undefined ? undefined : new Restriction(given);
  const { timeout, maxTime } = args;
  const idleTimeoutMs =
    timeout === undefined ? DEFAULT_IDLE_TIMEOUT_MS * 2 : parseDuration('--timeout', timeout);
  const maxTimeMs = maxTime === undefined ? undefined : parseDuration('--max-time', maxTime);
  const controller = new AbortController();
  // Ctrl-C at the near side's terminal reaches its whole process group; the near side ends the conversation itself.
  process.on('SIGINT', () => {});
  for (const signal of ['SIGTERM', 'SIGHUP'] as const) process.on(signal, () => controller.abort());
  try {
    await runFarAgent(standardStreams(), {
      idleTimeoutMs,
      maxTimeMs,
      restriction,
      serveStore: async (...request) => {
        const { serveStore } = await import('../../backup/backends/agent/serve-store.ts');
        await serveStore(...request);
      },
      signal: controller.signal,
    });
    return EXIT_OK;
  } catch (error) {
    return exitStatusOf(toSqlsyncError(error).code);
  } finally {
    endSoon();
  }
}

/** Tells a waiting near side why this agent cannot serve it. A person has read that on stderr. */
export async function tellPeer(failure: SqlsyncError): Promise<void> {
  const stdin = fstatSync(0);
  if (!stdin.isFIFO() && !stdin.isSocket()) return;
  await refuseToServe(standardStreams(), failure, DEFAULT_IDLE_TIMEOUT_MS * 2);
  endSoon();
}

function endSoon(): void {
  process.stdin.destroy();
  setTimeout(() => process.exit(), LAST_WORDS_MS).unref();
}

function standardStreams(): Transport {
  return {
    description: 'the near side',
    input: process.stdin,
    output: process.stdout,
    freeChunk,
    exited: Promise.resolve({ status: null, signal: null, stderr: '' }),
    terminate: () => process.stdin.destroy(),
  };
}

export const command: Command = defineCommand({
  name: 'agent',
  usage: '',
  describe: 'The far side of a connection, on stdin and stdout',
  example: 'sqlsync agent --restrict /srv/db --read-only',
  operands: {},
  options: { ...OWN_OPTIONS, ...RESTRICTION_OPTIONS },
  run: runAgentCommand,
});
