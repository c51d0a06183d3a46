import { styleText } from 'node:util';
import { sanitizeText, systemErrorCode } from '../../errors.ts';
import type { SqlsyncError } from '../../errors.ts';
import type { WarningKind } from '../../sync/request/announcements.ts';
import { exitStatusOf } from './exit.ts';
import { wrapText } from './wrap.ts';

export type Verbosity = 'quiet' | 'normal' | 'verbose';

export interface OutputOptions {
  readonly json: boolean;
  readonly verbosity: Verbosity;
  /** True if stdout carries a database: results and JSON then go to stderr. */
  readonly isStdoutTaken?: boolean | undefined;
}

/** The indent of the lines after the first. */
const INDENT = 'sqlsync: '.length;

/** How many characters of output are kept for the report of a failure. */
const TAIL_MAX_LENGTH = 8192;

/**
 * The output of a command. Results go to stdout, everything else to stderr. With `--json` stdout carries one JSON
 * object per line and stderr nothing; with `-q` only errors and warnings that are news are printed.
 *
 * The last line of `--json` is the summary of a completed command, also if it found differences or damage, or the error that ended it. It is
 * exactly one of the two, and nothing follows.
 */
export class Output {
  readonly options: OutputOptions;
  /** Called before each output, so that a progress line can make room. */
  beforeWrite: () => void = () => {};
  /** More fields for the summary of `--json`. */
  moreOfSummary: () => object = () => ({});
  #tail = '';
  #isLastHeld = false;
  #last: object | undefined;

  constructor(options: OutputOptions) {
    this.options = options;
  }

  /** The last lines for people, including those that -q or --json withhold. */
  get tail(): string {
    return this.#tail;
  }

  get #results(): NodeJS.WriteStream {
    return this.options.isStdoutTaken === true ? process.stderr : process.stdout;
  }

  /** Removes the progress line, for a program that writes to the terminal itself. */
  makeRoom(): void {
    this.beforeWrite();
  }

  /** One event or result for programs; prints nothing without `--json`. */
  json(given: { type: string } & Record<string, unknown>): void {
    if (!this.options.json) return;
    const event = given.type === 'summary' ? { ...given, ...this.moreOfSummary() } : given;
    if (this.#isLastHeld && (event.type === 'summary' || event.type === 'error')) this.#last = event;
    else write(this.#results, `${JSON.stringify(event)}\n`);
  }

  /**
   * Runs `work`, which prints a summary or an error and may print more afterwards: the later of them becomes the last
   * line.
   */
  async withLastHeld<T>(work: () => Promise<T>): Promise<T> {
    this.#isLastHeld = true;
    try {
      return await work();
    } finally {
      this.#isLastHeld = false;
      if (this.#last !== undefined) write(this.#results, `${JSON.stringify(this.#last)}\n`);
      this.#last = undefined;
    }
  }

  /** A result for people. */
  result(text: string): void {
    this.#keep(text);
    if (this.options.json || this.options.verbosity === 'quiet') return;
    this.beforeWrite();
    // Paths and tags in it may come from anyone.
    write(this.#results, `${wrapped(sanitizeText(text, Infinity), this.#results)}\n`);
  }

  /**
   * A warning that changes what the user has or asked for: damage, something left out or not done, a danger. It is the
   * only sign of that, so -q lets it through. Warnings about the course of the run are `advice`.
   */
  warning(text: string, kind: WarningKind = 'news'): void {
    this.#keep(`warning: ${shown(text, 2000)}`);
    if (this.options.json) return this.json({ type: 'warning', message: text });
    if (kind === 'advice' && this.options.verbosity === 'quiet') return;
    this.#say(`${colour('yellow', 'warning:')} ${shown(text, 2000)}`);
  }

  note(text: string): void {
    if (this.options.verbosity !== 'verbose') return;
    if (this.options.json) return this.json({ type: 'note', message: text });
    this.#say(`note: ${shown(text, 4000)}`);
  }

  error(error: SqlsyncError): void {
    if (this.options.json) this.json({ type: 'error', ...errorAsJson(error) });
    this.#tell(error);
  }

  /** The failure of one of several databases; the run goes on. */
  failure(origin: string, error: SqlsyncError): void {
    if (this.options.json) this.json({ type: 'failure', origin, ...errorAsJson(error) });
    this.#tell(error);
  }

  #tell(error: SqlsyncError): void {
    const { code, message, hint } = error;
    this.#keep(`sqlsync: ${shown(message, 4000)} [${code}]\n${hint === undefined ? '' : shown(hint, 4000)}`);
    if (this.options.json) return;
    // Names in it may come from a peer, or from another user's file.
    this.#say(`${colour('red', 'sqlsync:')} ${shown(message, 4000)} [${code}]`);
    if (hint !== undefined) this.#say(`${' '.repeat(INDENT)}${shown(hint, 4000)}`);
    if (code === 'INTERNAL' && this.options.verbosity === 'verbose' && error.cause instanceof Error) {
      this.#say(error.cause.stack ?? '');
    }
  }

  #keep(text: string): void {
    this.#tail = `${this.#tail}${text.trimEnd()}\n`;
    if (this.#tail.length > TAIL_MAX_LENGTH) this.#tail = `…${this.#tail.slice(-TAIL_MAX_LENGTH)}`;
  }

  #say(text: string): void {
    this.beforeWrite();
    write(process.stderr, `${wrapped(text, process.stderr, INDENT)}\n`);
  }
}

function errorAsJson({ code, message, hint, outcome }: SqlsyncError): Record<string, unknown> {
  const more = { ...(hint === undefined ? {} : { hint }), ...(outcome === undefined ? {} : { outcome }) };
  return { code, message, ...more, exitStatus: exitStatusOf(code) };
}

/** Streams that cannot be written any more. */
const broken = new Set<NodeJS.WriteStream>();

const stdoutEnd = new AbortController();

/** Aborts when nobody reads stdout any more. */
export const stdoutClosed: AbortSignal = stdoutEnd.signal;

/**
 * A reader of stdout or stderr that is gone (`sqlsync … | head`) neither ends the work nor changes the exit status. If
 * the output cannot be written for another reason, as on a full disk, the work goes on too, but the exit status must
 * show that the output is incomplete.
 */
export function surviveClosedStreams(): void {
  for (const stream of [process.stdout, process.stderr]) {
    stream.on('error', (error: Error) => {
      if (broken.has(stream)) return;
      broken.add(stream);
      if (stream === process.stdout) stdoutEnd.abort();
      if (systemErrorCode(error) === 'EPIPE') return;
      write(process.stderr, `sqlsync: the output could not be written: ${error.message}\n`);
      process.once('exit', () => (process.exitCode = exitStatusOf('INTERNAL')));
    });
  }
}

function write(stream: NodeJS.WriteStream, text: string): void {
  if (!broken.has(stream)) stream.write(text);
}

/** Colours if stderr is a terminal and NO_COLOR is not set (styleText checks both). */
function colour(format: 'red' | 'yellow', text: string): string {
  return styleText(format, text, { stream: process.stderr });
}

/** Wraps for a terminal, whose width may be unknown (0). A reader of a pipe or a file gets the lines as they are. */
function wrapped(text: string, stream: NodeJS.WriteStream, indent?: number): string {
  return stream.isTTY ? wrapText(text, stream.columns || 80, indent) : text;
}

/** Safe to show, with further lines indented, so that none of them looks like one of ours. */
function shown(text: string, maxLength: number): string {
  return sanitizeText(text, maxLength).replaceAll('\n', `\n${' '.repeat(INDENT)}`);
}
