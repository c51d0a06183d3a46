import { systemErrorCode } from '../errors.ts';

/** Further kinds are counted as one: codes made of user input must not fill the memory. */
const MAX_KINDS = 200;
const OTHER_KINDS = '(other)';

/** How many calls rejected, by the kind of their error. */
export class FailureCounts {
  readonly #kinds = new Map<string, number>();
  total = 0;

  add(kind: string): void {
    this.total += 1;
    const known = this.#kinds.has(kind) || this.#kinds.size < MAX_KINDS ? kind : OTHER_KINDS;
    this.#kinds.set(known, (this.#kinds.get(known) ?? 0) + 1);
  }

  stats(): Record<string, number> {
    return Object.fromEntries(this.#kinds);
  }
}

/** The code of an error, or its name if it has no code, as an error of the application's functions. */
export function failureKind(error: unknown): string {
  const code = systemErrorCode(error);
  if (code !== undefined) return code;
  return error instanceof Error ? error.name : typeof error;
}
