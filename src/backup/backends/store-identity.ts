import { createHash } from 'node:crypto';
import { sanitizeLine } from '../../errors.ts';

/**
 * Knows which store lies at a place: the one whose config was read or put there first. A file system may be unmounted
 * later, or another store take the place. Then nothing may be put there, and a file that is missing says nothing.
 */
export class StoreIdentity {
  #id: string | undefined;
  /** What the place said of the file of the right config, such as its time, when it was last compared. */
  #stamp: string | undefined;

  get isKnown(): boolean {
    return this.#id !== undefined;
  }

  /** @param config - the whole file. */
  learn(config: Uint8Array): void {
    this.#id ??= idIn(config);
  }

  /** After this process wrote another config. */
  replace(config: Uint8Array): void {
    this.#id = idIn(config);
    this.#stamp = undefined;
  }

  /** True if the file is one that was compared before, as far as its stamp shows. */
  isStamped(stamp: string | undefined): boolean {
    return stamp !== undefined && stamp === this.#stamp;
  }

  /**
   * Throws if the config that lies there now is missing or that of another store.
   *
   * @param stamp - remembered for `isStamped` if it is the right one.
   */
  compare(config: Uint8Array | undefined, stamp?: string): void {
    if (this.#id === undefined) return;
    if (config === undefined) throw storeIsGone();
    const id = idIn(config);
    if (id !== this.#id)
      throw new Error(`another store lies there now: ${shown(id)} instead of ${shown(this.#id)}`);
    this.#stamp = stamp;
  }
}

export function storeIsGone(): Error {
  return new Error('the store is not there any more; its file system may have been unmounted');
}

/** The id of the store; the hash of a config that cannot be read. */
function idIn(config: Uint8Array): string {
  try {
    const { id } = JSON.parse(new TextDecoder().decode(config)) as { readonly id?: unknown };
    if (typeof id === 'string') return id;
  } catch {
    // A damaged one is still recognized.
  }
  return createHash('sha256').update(config).digest('hex');
}

function shown(id: string): string {
  return sanitizeLine(id, 80).slice(0, 8);
}
