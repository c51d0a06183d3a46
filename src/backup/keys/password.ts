import { scrypt } from 'node:crypto';
import { SqlsyncError } from '../../errors.ts';
import { throwIfAborted } from '../store-error.ts';

/** A longer one is a file given by mistake. */
const MAX_PASSWORD_BYTES = 4096;

const DERIVED_BYTES = 64;

/** How a key is made of a password. */
export interface ScryptParameters {
  readonly N: number;
  readonly r: number;
  readonly p: number;
  readonly salt: Uint8Array;
}

/**
 * The password of a store, or a function that gets it when it is needed: from the user, or from another program. The
 * function gets the signal that ends the run.
 */
export type PasswordSource = string | ((signal?: AbortSignal) => string | Promise<string>);

/** A password that is asked for once, when it is first needed, and whose scrypt is computed once for each key file. */
export class Password {
  /** False if it may be asked for, but the user did not say that there is one. */
  readonly isGiven: boolean;
  readonly #source: PasswordSource;
  #text: Promise<string> | undefined;
  readonly #derived = new Map<string, Promise<Buffer>>();

  constructor(source: PasswordSource, isGiven: boolean = true) {
    this.#source = source;
    this.isGiven = isGiven;
  }

  /** The same password, for a store that need not be encrypted. */
  unlessNeeded(): Password {
    return new Password((signal) => this.text(signal), false);
  }

  /** Throws SqlsyncError STORE_PASSWORD if there is none, INTERRUPTED, and what the source throws. */
  text(signal?: AbortSignal): Promise<string> {
    throwIfAborted(signal);
    this.#text ??= this.#get(signal);
    return this.#text;
  }

  /** 64 bytes by scrypt. The caller has checked the parameters: they decide how long this takes, and how much memory. */
  async derive(parameters: ScryptParameters): Promise<Buffer> {
    const { N, r, p, salt } = parameters;
    const name = `${N} ${p} ${Buffer.from(salt).toString('hex')}`;
    let derived = this.#derived.get(name);
    if (derived === undefined) {
      const text = await this.text();
      const maxmem = 128 * r * (N + p + 2) + 2 ** 20;
      derived = new Promise((resolve, reject) => {
        scrypt(text, salt, DERIVED_BYTES, { N, r, p, maxmem }, (error, key) =>
          error === null ? resolve(key) : reject(noKey(error, maxmem)),
        );
      });
      this.#derived.set(name, derived);
    }
    return derived;
  }

  async #get(signal: AbortSignal | undefined): Promise<string> {
    const text = typeof this.#source === 'string' ? this.#source : await this.#source(signal);
    const bytes = Buffer.byteLength(text);
    if (bytes > 0 && bytes <= MAX_PASSWORD_BYTES) return text;
    throw new SqlsyncError(
      'STORE_PASSWORD',
      `The password has ${bytes} bytes; expected 1 to ${MAX_PASSWORD_BYTES}`,
      { hint: 'Give the password itself; what is longer is a file given by mistake.' },
    );
  }
}

function noKey(error: Error, bytes: number): SqlsyncError {
  const needed = `${Math.ceil(bytes / 2 ** 20)} MiB`;
  return new SqlsyncError('STORE_PASSWORD', `The key of the password cannot be computed: ${error.message}`, {
    hint: `It takes ${needed} of memory; make room for that.`,
    cause: error,
  });
}

export function passwordOf(source: PasswordSource | Password): Password;
export function passwordOf(source: PasswordSource | Password | undefined): Password | undefined;
export function passwordOf(source: PasswordSource | Password | undefined): Password | undefined {
  return source === undefined || source instanceof Password ? source : new Password(source);
}
