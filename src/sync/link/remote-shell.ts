import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { SqlsyncError } from '../../errors.ts';
import type { Transport } from '../../transport/transport.ts';

/** The measured speed of a link. */
export interface LinkFigures {
  /** Milliseconds; the shortest of a few round trips. */
  readonly roundTripMs: number;
  /** Bytes per second, incompressible, from the other host and to it. */
  readonly downloadBytesPerS: number;
  readonly uploadBytesPerS: number;
}

const ROUND_TRIPS = 5;
const FIRST_PROBE_BYTES = 256 * 1024;
const MAX_PROBE_BYTES = 32 * 1024 * 1024;

/** A measurement may stop once it took this long. */
const PROBE_MS = 400;

/** Text of the other side that may come before the requested output. */
const MAX_TEXT_BYTES = 1024 * 1024;

/**
 * A POSIX shell on another host that reads commands from its stdin, so that no login shell and no command line sees
 * them. One question at a time. Every method throws SqlsyncError: CONNECTION_LOST, TIMEOUT, PROTOCOL.
 */
export class RemoteShell {
  readonly #transport: Transport;
  readonly #timeoutMs: number;
  readonly #mark: string = `sqlsync-${randomBytes(9).toString('hex')}`;
  #marks = 0;
  #received: Buffer[] = [];
  #receivedBytes = 0;
  /** Bytes that may wait unread: a shell sends no more in answer to our questions. */
  #allowedBytes = MAX_TEXT_BYTES;
  #ended = false;
  readonly #end = Promise.withResolvers<void>();
  #failure: Error | undefined;
  #wake: (() => void) | undefined;

  constructor(transport: Transport, timeoutMs: number) {
    this.#transport = transport;
    this.#timeoutMs = timeoutMs;
    transport.input.on('data', (bytes: Buffer) => {
      this.#received.push(bytes);
      this.#receivedBytes += bytes.length;
      if (this.#receivedBytes > this.#allowedBytes) this.#onFlood();
      this.#wake?.();
    });
    for (const event of ['end', 'close'] as const) transport.input.on(event, () => this.#onEnd());
    transport.input.on('error', (error: Error) => {
      this.#failure = error;
      this.#onEnd();
    });
    transport.output.on('error', () => this.#onEnd());
  }

  /** The output of these lines, and what was printed before it. */
  async ask(script: string): Promise<string> {
    const mark = this.#nextMark();
    this.#send(`${script}\nprintf '%s\\n' '' ${mark}\n`);
    return (await this.#until(mark)).toString('utf8');
  }

  /**
   * Runs a script that reads exactly `byteCount` bytes from its stdin, and returns its output. A marker shows that it
   * has begun to read, and that the shell does not take the bytes as commands.
   */
  async feed(
    script: string,
    byteCount: number,
    bytes: Iterable<Buffer> | AsyncIterable<Buffer>,
  ): Promise<string> {
    const [begin, end] = [this.#nextMark(), this.#nextMark()];
    this.#send(`{ printf '%s\\n' '' ${begin}; ${script}; printf '%s\\n' '' ${end}; }\n`);
    await this.#until(begin);
    const { output } = this.#transport;
    let sent = 0;
    for await (const chunk of bytes) {
      if (this.#ended) break;
      sent += chunk.length;
      if (output.write(chunk)) continue;
      await this.#unlessSilent(Promise.race([once(output, 'drain').catch(() => {}), this.#end.promise]));
    }
    // The shell would wait for the rest, and take what comes next for it.
    if (sent !== byteCount && !this.#ended)
      throw new SqlsyncError('SYSTEM_ERROR', `${sent} bytes were there to send; expected ${byteCount}`, {
        hint: 'Run it again: the file changed meanwhile.',
      });
    return (await this.#until(end)).toString('utf8');
  }

  async measure(): Promise<LinkFigures> {
    let roundTripMs = Infinity;
    for (let i = 0; i < ROUND_TRIPS; i++) {
      const startedAt = performance.now();
      await this.ask(':');
      roundTripMs = Math.min(roundTripMs, performance.now() - startedAt);
    }
    const downloadBytesPerS = await probe((bytes) => this.#download(bytes));
    const uploadBytesPerS = await probe((bytes) => this.#upload(bytes));
    return { roundTripMs, downloadBytesPerS, uploadBytesPerS };
  }

  close(): void {
    this.#transport.terminate();
  }

  async #download(bytes: number): Promise<number> {
    const [begin, end] = [this.#nextMark(), this.#nextMark()];
    this.#send(`printf '%s\\n' '' ${begin}; head -c ${bytes} /dev/urandom; printf '%s\\n' '' ${end}\n`);
    await this.#until(begin);
    const startedAt = performance.now();
    await this.#until(end, bytes);
    return performance.now() - startedAt;
  }

  async #upload(byteCount: number): Promise<number> {
    const chunk = randomBytes(64 * 1024);
    let startedAt = 0;
    function* noise(): Generator<Buffer> {
      startedAt = performance.now();
      for (let left = byteCount; left > 0; left -= chunk.length) yield chunk.subarray(0, left);
    }
    await this.feed(`head -c ${byteCount} > /dev/null`, byteCount, noise());
    return performance.now() - startedAt;
  }

  #nextMark(): string {
    return `${this.#mark}-${this.#marks++}`;
  }

  #send(text: string): void {
    if (!this.#transport.output.destroyed) this.#transport.output.write(text);
  }

  /** Everything before `mark` on its own line: `atLeast` bytes, perhaps with some text. */
  async #until(mark: string, atLeast = 0): Promise<Buffer> {
    const wanted = Buffer.from(`\n${mark}\n`);
    this.#allowedBytes = atLeast + wanted.length + MAX_TEXT_BYTES;
    for (;;) {
      if (this.#receivedBytes >= atLeast + wanted.length) {
        const all = Buffer.concat(this.#received);
        const at = all.indexOf(wanted, atLeast);
        this.#received = [all];
        if (at !== -1) {
          this.#received = [all.subarray(at + wanted.length)];
          this.#receivedBytes = this.#received[0]?.length ?? 0;
          this.#allowedBytes = MAX_TEXT_BYTES;
          return all.subarray(0, at);
        }
      }
      if (this.#ended) throw await this.#lost();
      await this.#more();
    }
  }

  async #more(): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#wake = resolve;
    await this.#unlessSilent(promise);
  }

  /** Throws TIMEOUT if the event takes longer than the other side may be silent. */
  async #unlessSilent(event: Promise<unknown>): Promise<void> {
    if (this.#timeoutMs === 0) return void (await event);
    const silence = `${this.#transport.description} has been silent for ${Math.round(this.#timeoutMs / 1000)} s`;
    const { promise: silent, reject } = Promise.withResolvers<never>();
    const timer = setTimeout(
      () => reject(new SqlsyncError('TIMEOUT', silence, { hint: 'Allow more time with --timeout.' })),
      this.#timeoutMs,
    );
    await Promise.race([event, silent]).finally(() => clearTimeout(timer));
  }

  #onFlood(): void {
    this.#transport.input.pause();
    this.#failure = unlikeShell('it sends too much');
    this.#onEnd();
  }

  #onEnd(): void {
    this.#ended = true;
    this.#end.resolve();
    this.#wake?.();
  }

  /** The last output shows what the other side is: a forced command, perhaps an agent of ours. */
  async #lost(): Promise<Error> {
    if (this.#failure instanceof SqlsyncError) return this.#failure;
    const { stderr } = await this.#transport.exited;
    const said = Buffer.concat(this.#received).toString('utf8');
    return new UnlikeShellError(said, stderr);
  }
}

/** The far program is not a shell. `said` is the start of its output; not made safe to show. */
export class UnlikeShellError extends SqlsyncError {
  readonly said: string;

  constructor(said: string, stderr: string) {
    super(
      'CONNECTION_LOST',
      `The other host runs no shell for us${stderr === '' ? '' : `; it said: ${stderr}`}`,
      {
        hint: 'A sync also works with a forced command or a restricted login, but `setup` can check less.',
      },
    );
    this.said = said;
  }
}

function unlikeShell(why: string): SqlsyncError {
  return new SqlsyncError('PROTOCOL', `What runs on the other host does not answer as a shell does: ${why}`);
}

/** Moves more and more bytes until the time can be measured; returns bytes per second. */
async function probe(move: (bytes: number) => Promise<number>): Promise<number> {
  for (let bytes = FIRST_PROBE_BYTES; ;) {
    const tookMs = await move(bytes);
    if (tookMs >= PROBE_MS || bytes >= MAX_PROBE_BYTES) return (bytes / Math.max(tookMs, 0.1)) * 1000;
    bytes = Math.min(MAX_PROBE_BYTES, bytes * (tookMs < PROBE_MS / 8 ? 8 : 2));
  }
}
