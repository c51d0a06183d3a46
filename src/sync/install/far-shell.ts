import { SqlsyncError, sanitizeText } from '../../errors.ts';
import { limitRate } from '../../transport/rate-limit.ts';
import { PATIENCE_FACTOR } from '../link/heartbeat.ts';
import { RemoteShell, UnlikeShellError } from '../link/remote-shell.ts';
import { connectRemote } from '../link/start-agent.ts';
import type { RemoteOptions, SshLocation } from '../link/start-agent.ts';

export interface FarShellOptions extends RemoteOptions {
  readonly location: SshLocation;
  readonly idleTimeoutMs: number;
  readonly signal?: AbortSignal | undefined;
  readonly onWarning?: ((warning: string) => void) | undefined;
}

/** The lines `name=value` of an answer, safe to show. */
export class Answers {
  readonly #lines: readonly (readonly [name: string, value: string])[];

  constructor(text: string) {
    this.#lines = text.split('\n').map((line) => {
      const at = line.indexOf('=');
      return [line.slice(0, at), sanitizeText(line.slice(at + 1), 1000).trim()] as const;
    });
  }

  all(name: string): string[] {
    return this.#lines.flatMap(([other, value]) => (other === name ? [value] : []));
  }

  /** The last value of that name, or ''. */
  one(name: string): string {
    return this.all(name).at(-1) ?? '';
  }
}

/** A login that runs our scripts. */
export class FarShell {
  readonly #shell: RemoteShell;

  constructor(shell: RemoteShell) {
    this.#shell = shell;
  }

  /**
   * Runs a script as a function: a shell that got only a part of it runs none of it. Throws SqlsyncError, SYSTEM_ERROR
   * if the script says that it failed.
   */
  async run(script: string): Promise<Answers> {
    const answers = new Answers(await this.#shell.ask(`f() {\n${script}\n}\nf`));
    const failed = answers.one('failed');
    if (failed === '') return answers;
    throw new SqlsyncError('SYSTEM_ERROR', `The other host said: ${failed}`, {
      hint: 'Mend that there and run it again. Nothing was replaced.',
    });
  }

  /** Runs a script that reads `sizeBytes` bytes, and returns its output. Throws SqlsyncError. */
  feed(script: string, sizeBytes: number, bytes: AsyncIterable<Buffer>): Promise<string> {
    return this.#shell.feed(script, sizeBytes, bytes);
  }
}

/**
 * Runs `work` with a shell on the other host that has run `prelude`. The shell ends with it, or when the signal aborts.
 * Throws SqlsyncError if the login runs no shell.
 */
export async function withFarShell<T>(
  options: FarShellOptions,
  prelude: string,
  work: (shell: FarShell) => Promise<T>,
): Promise<T> {
  const { location, signal, onWarning, bandwidthBytesPerS } = options;
  const reached = await connectRemote(location, ['sh'], { remote: options, signal, onWarning });
  const transport = bandwidthBytesPerS === undefined ? reached : limitRate(reached, bandwidthBytesPerS);
  const shell = new RemoteShell(transport, options.idleTimeoutMs * PATIENCE_FACTOR);
  const close = (): void => shell.close();
  signal?.addEventListener('abort', close, { once: true });
  let isShell = false;
  try {
    await shell.ask(':');
    isShell = true;
    await shell.ask(prelude);
    return await work(new FarShell(shell));
  } catch (error) {
    if (!(error instanceof UnlikeShellError)) throw error;
    if (!isShell)
      throw new SqlsyncError(error.code, error.message, {
        hint: 'Log in with a key that may run any command there.',
        cause: error,
      });
    throw new SqlsyncError('CONNECTION_LOST', `${transport.description}: the shell there ended too early`, {
      hint: 'Run it again. What was installed before is still there.',
      cause: error,
    });
  } finally {
    signal?.removeEventListener('abort', close);
    close();
  }
}
