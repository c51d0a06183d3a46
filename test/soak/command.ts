import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { childrenOf } from '../library/running-sync.ts';
import { CLI } from '../support/relay-kill.ts';
import type { Sshd } from '../support/sshd.ts';
import { installRemote, remote } from '../support/ssh-cli.ts';

/** How a sync reaches its other side; `pull` and `push` go over SSH, `local` has its far agent as a child. */
export const WAYS = ['local', 'pull', 'push'] as const;
export type Way = (typeof WAYS)[number];

export interface CommandEnd {
  readonly status: number | null;
  readonly signal: string | null;
  /** The code of its last JSON event, which is the summary or the error. */
  readonly outcome: string;
  /** The message of a failure. */
  readonly message: string;
  readonly bytes: number;
  readonly durationMs: number;
  /** Its last JSON event. */
  readonly event: Readonly<Record<string, unknown>>;
}

/** A sync by the command line that is running. */
export interface RunningCommand {
  readonly nearPid: number;
  /** Undefined before it starts, and after its end. */
  farPid(): number | undefined;
  readonly ended: Promise<CommandEnd>;
}

/** Starts syncs, by the command line. */
export class Commands {
  readonly #sshd: Sshd | undefined;
  readonly #cache: string;

  constructor(folder: string, sshd: Sshd | undefined) {
    this.#sshd = sshd;
    this.#cache = `${folder}/compile-cache`;
    if (sshd !== undefined) installRemote(sshd, `${folder}/agents`);
  }

  get ways(): readonly Way[] {
    return this.#sshd === undefined ? ['local'] : WAYS;
  }

  /** Kills the open connections. */
  cut(): void {
    this.#sshd?.killSessions();
  }

  start(way: Way, origin: string, replica: string): RunningCommand {
    const args = [...this.#locations(way, origin, replica), '--overwrite', '--replace'];
    const running = this.run(args);
    return way === 'local' ? running : { ...running, farPid: () => undefined };
  }

  /** Starts any command. */
  run(args: readonly string[], env: NodeJS.ProcessEnv = {}): RunningCommand {
    const startedAt = performance.now();
    const child = spawn(process.execPath, [CLI, ...args, '--json'], {
      env: { ...process.env, ...env, NODE_COMPILE_CACHE: this.#cache },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    let text = '';
    child.stdout.setEncoding('utf8').on('data', (more: string) => (text += more));
    child.stderr.setEncoding('utf8').on('data', (more: string) => (text += more));
    const ended = once(child, 'close').then(([status, signal]: unknown[]): CommandEnd => ({
      status: status as number | null,
      signal: signal as string | null,
      ...lastEvent(text),
      durationMs: performance.now() - startedAt,
    }));
    const nearPid = child.pid ?? 0;
    return { nearPid, farPid: () => childrenOf(nearPid)[0], ended };
  }

  #locations(way: Way, origin: string, replica: string): string[] {
    const sshd = this.#sshd;
    if (way === 'local' || sshd === undefined) return [origin, replica];
    const connecting = ['--port', String(sshd.port), '--identity', sshd.clientKey];
    connecting.push('--known-hosts', sshd.knownHostsFile, '--ssh-config', 'none');
    const pair = way === 'pull' ? [remote(sshd, origin), replica] : [origin, remote(sshd, replica)];
    return [...pair, ...connecting];
  }
}

function lastEvent(text: string): Pick<CommandEnd, 'outcome' | 'message' | 'bytes' | 'event'> {
  const lines = text.split('\n').filter((line) => line.startsWith('{'));
  const event = JSON.parse(lines.at(-1) ?? '{}') as Record<string, unknown>;
  const bytes = Number(event['bytesSent'] ?? 0) + Number(event['bytesReceived'] ?? 0);
  const said = event['outcome'] ?? event['code'];
  const message = typeof event['message'] === 'string' ? event['message'] : '';
  return { outcome: typeof said === 'string' ? said : text.slice(0, 300), message, bytes, event };
}
