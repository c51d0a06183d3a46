import type { Readable } from 'node:stream';
import { StringDecoder } from 'node:string_decoder';
import { sanitizeText } from '../errors.ts';

/** How many bytes of a far process's stderr are kept. */
export const STDERR_TAIL_BYTES = 4096;

/**
 * Reads the stderr of a far process to its end, because an unread one would block it, and keeps its last {@link
 * STDERR_TAIL_BYTES}.
 */
export class StderrTail {
  #tail: Buffer = Buffer.alloc(0);
  /** Joins a character that two chunks share. */
  readonly #decoder = new StringDecoder('utf8');
  readonly #onText: ((text: string) => void) | undefined;

  constructor(source: Readable, onText?: (text: string) => void) {
    this.#onText = onText;
    source.on('data', (chunk: Buffer) => this.#add(chunk));
    source.on('error', () => {}); // the end of the transport tells more than the end of its stderr
  }

  /** Sanitized and trimmed; '' if there was no output. */
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
