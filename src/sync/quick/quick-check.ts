import { realpathSync } from 'node:fs';
import type { HashAlgorithm } from '../../../protocol/messages.ts';
import { outerStamp, STAMP_BYTES } from '../../pages/database-stamp.ts';
import { loadQuickRecord, saveQuickRecord } from './quick-record.ts';
import type { QuickPair, QuickRecord } from './quick-record.ts';

export interface QuickOptions extends QuickPair {
  readonly hash: HashAlgorithm;
  /** True if this run is to compare all pages. */
  readonly full: boolean;
  /** True if SQLite will read the replica anyway, and what it finds is to be the origin's. */
  readonly check: boolean;
  /** How long the last full comparison counts, in milliseconds; 0 is as `full`. */
  readonly fullEveryMs: number;
  /** The origin's file, if it is on this host. */
  readonly originFile?: string | undefined;
  /** Takes the reason if nothing can be remembered. */
  readonly onNote?: ((note: string) => void) | undefined;
}

/** The origin is unchanged since the record and the replica is not: all pages have to be compared. */
export class QuickMissError extends Error {
  override readonly name = 'QuickMissError';
}

/**
 * Knows without reading pages that a replica is still an exact copy: from a record of the stamps that both databases
 * had when all their pages were compared. Such a record stays true for ever, so an old one, or one that another run put
 * in its place, only costs a comparison.
 */
export class QuickCheck {
  readonly #options: QuickOptions;
  readonly #record: QuickRecord | undefined;

  constructor(options: QuickOptions) {
    this.#options = options;
    const record = loadQuickRecord(options);
    this.#record = record !== undefined && countsStill(options, record) ? record : undefined;
  }

  /** The origin's stamp in the record: an origin that has it is unchanged. 0 bytes without a usable record. */
  get originStamp(): Uint8Array {
    return Buffer.from(this.#record?.originStamp ?? '', 'hex');
  }

  /**
   * True if sizes and times of both files are as recorded, so that probably no page will be read. Opens neither file,
   * and proves nothing.
   */
  get looksUntouched(): boolean {
    return this.#record !== undefined && this.#record.files !== '' && this.#record.files === this.#files();
  }

  /** True if a replica with this stamp is a copy of the origin with `originStamp`. */
  isCopy(replicaStamp: Uint8Array | undefined): boolean {
    return replicaStamp !== undefined && this.#record?.replicaStamp === toHex(replicaStamp);
  }

  /**
   * Records that two databases with these stamps are the same, as a comparison found of which all hashes were made at
   * `comparedAt` or later.
   */
  remember(originStamp: Uint8Array, replicaStamp: Uint8Array | undefined, comparedAt: number): void {
    if (originStamp.length !== STAMP_BYTES || replicaStamp === undefined) return;
    const stamps = { originStamp: toHex(originStamp), replicaStamp: toHex(replicaStamp) };
    const how = { hash: this.#options.hash, comparedAt, files: this.#files() };
    this.attempt(() => saveQuickRecord(this.#options, { ...stamps, ...how }));
  }

  /** Notes why `save` failed: it only makes the next run slower. */
  attempt(save: () => void): void {
    try {
      save();
    } catch (error) {
      const why = error instanceof Error ? error.message : String(error);
      this.#options.onNote?.(`The next run will compare all pages, since nothing can be remembered: ${why}`);
    }
  }

  #files(): string {
    const { originFile, replicaPath } = this.#options;
    try {
      return originFile === undefined
        ? ''
        : [realpathSync(originFile), replicaPath].map(outerStamp).join(', ');
    } catch {
      return '';
    }
  }
}

/** True if what was found at `comparedAt`, with this hash, is enough for the user. */
export function countsStill(
  { full, check, hash, fullEveryMs }: QuickOptions,
  found: { readonly hash: HashAlgorithm; readonly comparedAt: number },
): boolean {
  const age = Date.now() - found.comparedAt;
  // The user may trust another hash more, so it must be the same one.
  return !full && !check && age >= 0 && age < fullEveryMs && found.hash === hash;
}

function toHex(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('hex');
}
