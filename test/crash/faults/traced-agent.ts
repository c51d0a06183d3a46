import { spawn, spawnSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { text as textOf } from 'node:stream/consumers';
import type { MessageOf } from '../../../protocol/messages.ts';
import { SqlsyncError } from '../../../src/errors.ts';
import type { ErrorCode } from '../../../src/errors.ts';
import { spawnProcess } from '../../../src/transport/process.ts';
import { CLI } from '../../support/relay-kill.ts';
import { failureOf, runNear } from '../../support/relay-near.ts';
import type { Pair, Role } from '../../support/relay-near.ts';
import type { Ended } from './scene.ts';

/** Whose system calls: in a push the replica agent's, in a pull the origin agent's; a local copy has no agent. */
export type TracedRole = Role | 'local';

/** A system call of what is traced that concerns a database, by its number among those of its name in its thread. */
export interface Call {
  readonly name: string;
  /** From 1, as strace counts for `when`. */
  readonly ordinal: number;
  /** The arguments, as strace prints them. */
  readonly text: string;
}

export interface TraceOptions {
  readonly role: TracedRole;
  /** System calls to record. */
  readonly trace: readonly string[];
  /** What strace does to these calls, such as `fsync:error=EIO:when=3`. */
  readonly inject?: readonly string[];
  /** Further options of strace. */
  readonly options?: readonly string[];
  readonly environment?: NodeJS.ProcessEnv;
}

export interface TracedRun extends Ended {
  /** All lines of strace. */
  readonly log: string;
}

/** One sync with the near agent in this process and the far one under strace, or with the whole command under it. */
export async function runTraced(pair: Pair, options: TraceOptions): Promise<TracedRun> {
  const log = join(dirname(pair.replica), '..', `${pair.replica.split('/').at(-2)}.strace`);
  const injections = (options.inject ?? []).flatMap((injection) => ['-e', `inject=${injection}`]);
  const { role, trace } = options;
  const command = {
    command: 'strace',
    args: ['-f', '-y', '-o', log, '-e', `trace=${trace.join(',')}`].concat(
      options.options ?? [],
      injections,
      [process.execPath, CLI],
      role === 'local' ? [pair.origin, pair.replica, '--json'] : ['agent'],
    ),
    // One thread in the pool, so that its calls have an order.
    env: { ...process.env, UV_THREADPOOL_SIZE: '1', ...options.environment },
  };
  const ended = role === 'local' ? await runCommand(command) : await runAgent(command, role, pair);
  return { ...ended, log: readFileSync(log, 'latin1') };
}

interface TracedCommand {
  readonly command: string;
  readonly args: string[];
  readonly env: NodeJS.ProcessEnv;
}

async function runAgent(command: TracedCommand, role: Role, pair: Pair): Promise<Ended> {
  const transport = spawnProcess(command);
  try {
    let done: MessageOf<'done'> | undefined;
    const run = runNear(transport, role, pair).then((last) => (done = last));
    const failure = await failureOf(run);
    await transport.exited;
    return { failure, done };
  } finally {
    transport.terminate();
  }
}

/** What the command says of itself; one that is killed says nothing. */
async function runCommand({ command, args, env }: TracedCommand): Promise<Ended> {
  const child = spawn(command, args, { env, stdio: ['ignore', 'pipe', 'ignore'] });
  const lines = (await textOf(child.stdout)).split('\n').filter((line) => line !== '');
  const last = JSON.parse(lines.at(-1) ?? '{}') as Partial<Record<string, unknown>>;
  if (last['type'] === 'summary')
    return { failure: undefined, done: { warnings: last['warnings'] as string[] } };
  const { code = 'CONNECTION_LOST', message = 'It was killed, and may have been committed', hint } = last;
  const explained = typeof hint === 'string' ? { hint } : {};
  return { failure: new SqlsyncError(code as ErrorCode, message as string, explained) };
}

/** The recorded calls that name a file in `folder`, in their order, numbered within their thread. */
export function callsIn(folder: string, log: string): Call[] {
  const counts = new Map<string, number>();
  const calls: Call[] = [];
  for (const [, thread = '', name = '', text = ''] of log.matchAll(/^(\d+) +(\w+)\((.*)$/gm)) {
    const key = `${thread} ${name}`;
    const ordinal = (counts.get(key) ?? 0) + 1;
    counts.set(key, ordinal);
    if (text.includes(folder)) calls.push({ name, ordinal, text });
  }
  return calls;
}

/** The reason why strace cannot run here; undefined if it can. */
export function straceFault(folder: string): string | undefined {
  const probe = join(folder, 'probe.strace');
  const program = [process.execPath, '-e', '0'];
  const inject = ['-e', 'trace=fsync', '-e', 'inject=fsync:signal=SIGKILL:when=1'];
  const { status, error, stderr } = spawnSync('strace', ['-o', probe, ...inject, ...program], {
    encoding: 'utf8',
  });
  if (error === undefined && status === 0 && existsSync(probe)) return undefined;
  return `NOT TESTED: strace is missing or may not trace here (${error?.message ?? stderr.trim()}); install it with \`apt-get install strace\``;
}
