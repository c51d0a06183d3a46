import type { Readable } from 'node:stream';
import { StringDecoder } from 'node:string_decoder';
import { sanitizeText } from '../errors.ts';

/** How much of what a far process wrote to stderr is kept, in bytes. */
export const STDERR_TAIL_BYTES = 4096;

/**
 * Reads the stderr of a far process to its end (an unread one would block it) and keeps the last
 * {@link STDERR_TAIL_BYTES} of it.
 */
export class StderrTail {
  #tail: Buffer = Buffer.alloc(0);
  /** Keeps a character together that two chunks share. */
  readonly #decoder = new StringDecoder('utf8');
  readonly #onText: ((text: string) => void) | undefined;

  constructor(source: Readable, onText?: (text: string) => void) {
    this.#onText = onText;
    source.on('data', (chunk: Buffer) => this.#add(chunk));
    source.on('error', () => {}); // the end of the transport tells more than the end of its stderr
  }

  /** Sanitized, without the white space around it; '' where there was nothing. */
  get text(): string {
    return cleanText(this.#tail.toString('utf8')).trim();
  }

  #add(chunk: Buffer): void {
    this.#tail = Buffer.from(Buffer.concat([this.#tail, chunk]).subarray(-STDERR_TAIL_BYTES));
    this.#onText?.(cleanText(this.#decoder.write(chunk)));
  }
}

function cleanText(text: string): string {
  return sanitizeText(text.replaceAll('\r\n', '\n'), Infinity);
}
