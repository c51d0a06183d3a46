import { SqlsyncError } from '../../errors.ts';
import type { LocalFiles } from '../backends/backend.ts';
import { comparePackNow } from './compare-pack.ts';
import { idOf, sameBytes, toHex } from '../packs/object-id.ts';
import type { ObjectIndex } from './object-index.ts';
import type { KnownPack } from './trust.ts';
import { damaged, StoreDamage } from '../store-error.ts';

/** An object as its frame stores it. */
export interface ObjectParts {
  /** The beginning of the base's id; undefined for a whole object. */
  readonly base: Uint8Array | undefined;
  /** Makes its bytes, in new memory, from the base's. Never fails, even with a wrong base. */
  readonly assemble: (base: Uint8Array) => Uint8Array;
}

/** The findings about one copy of an object. */
interface Verdict {
  /** The copy of its base that it is assembled with; undefined for a whole object, and for a delta without a readable base. */
  readonly base: number | undefined;
  /** True if it can be assembled at all, right or wrong. */
  readonly isReadable: boolean;
  /** Why it is wrong: this copy or a base of it is at fault. */
  readonly fault: SqlsyncError | undefined;
}

/** The most verdicts to keep; each takes about 100 bytes, a fault 1 KB. */
const MAX_KEPT_VERDICTS = 16_384;

const NOTHING = new Uint8Array(0);

/**
 * Looks closely at an object that did not match its id. Finds which copies of it, and of each base, match their own
 * ids. So a damaged copy is avoided; if all are damaged, the error names the file at fault, and not the last delta on
 * top of it. Each copy is judged once, so the time is bounded by the number of copies.
 *
 * A delta may be right although its base is wrong, if it replaces the wrong blocks.
 */
export class CopyJudge {
  readonly #index: ObjectIndex;
  readonly #files: LocalFiles;
  readonly #partsOf: (object: number) => ObjectParts;
  readonly #verdicts = new Map<number, Verdict>();
  readonly #changedPacks = new Map<string, boolean>();
  readonly #found = new Map<string, StoreDamage>();
  /** True if a fault may pass: the system refused to read. */
  #isUncertain = false;

  constructor(index: ObjectIndex, files: LocalFiles, partsOf: (object: number) => ObjectParts) {
    this.#index = index;
    this.#files = files;
    this.#partsOf = partsOf;
  }

  /** The damaged files found so far, by name, with the damage. */
  get found(): ReadonlyMap<string, StoreDamage> {
    return this.#found;
  }

  /** A right copy of an object, and its bytes. Throws the fault of the best copy: SqlsyncError STORE_*. */
  rightCopy(id: Uint8Array): { readonly object: number; readonly bytes: Uint8Array } {
    return this.#choose(id, false);
  }

  /** As `rightCopy`; if no copy is right, one that can be assembled. */
  anyCopy(id: Uint8Array): { readonly object: number; readonly bytes: Uint8Array } {
    return this.#choose(id, true);
  }

  /** What is wrong with one copy, or a base of it; undefined if nothing is. */
  faultOf(object: number): SqlsyncError | undefined {
    this.#begin();
    return this.#judge(object).fault;
  }

  /** The bytes of one copy for which `faultOf` returns undefined. */
  bytesOf(object: number): Uint8Array {
    return this.#bytesOf(object);
  }

  /** The damage if no index names the base of a delta: the delta's pack, if it was changed, else the indexes. */
  lostBase(object: number, base: Uint8Array): StoreDamage {
    const pack = this.#index.packOf(object);
    if (pack !== undefined && this.#isChanged(pack))
      return this.#note(damaged(`packs/${pack.id}`, 'was changed since it was written'));
    return damaged('indexes', `do not name the object ${toHex(base)}, which is needed`);
  }

  #begin(): void {
    if (!this.#isUncertain && this.#verdicts.size < MAX_KEPT_VERDICTS) return;
    this.#verdicts.clear();
    this.#isUncertain = false;
  }

  #choose(id: Uint8Array, takesWrong: boolean): { readonly object: number; readonly bytes: Uint8Array } {
    this.#begin();
    const { right, readable, fault } = this.#judgeAll(this.#index.copies(id));
    const object = right ?? (takesWrong ? readable[0] : undefined);
    if (object !== undefined) return { object, bytes: this.#bytesOf(object) };
    throw fault ?? damaged('indexes', `do not name the object ${toHex(id)}, which is needed`);
  }

  /** The first right copy among these; else the copies that can be assembled, and the fault of the first. */
  #judgeAll(copies: readonly number[]): {
    readonly right: number | undefined;
    readonly readable: readonly number[];
    readonly fault: SqlsyncError | undefined;
  } {
    const readable: number[] = [];
    let fault: SqlsyncError | undefined;
    for (const copy of copies) {
      const verdict = this.#judge(copy);
      if (verdict.fault === undefined) return { right: copy, readable, fault };
      fault ??= verdict.fault;
      if (verdict.isReadable) readable.push(copy);
    }
    return { right: undefined, readable, fault };
  }

  #judge(object: number): Verdict {
    const known = this.#verdicts.get(object);
    if (known !== undefined) return known;
    const verdict = this.#look(object);
    this.#verdicts.set(object, verdict);
    return verdict;
  }

  /** The recursion ends, since each base is less deep. */
  #look(object: number): Verdict {
    let parts: ObjectParts;
    try {
      parts = this.#partsOf(object);
    } catch (error) {
      if (!(error instanceof SqlsyncError)) throw error;
      return { base: undefined, isReadable: false, fault: this.#note(error) };
    }
    const { base, assemble } = parts;
    const isRight = (old: Uint8Array): boolean => sameBytes(idOf(assemble(old)), this.#index.idOf(object));
    if (base === undefined) {
      const fault = isRight(NOTHING) ? undefined : this.#wrong(object);
      return { base: undefined, isReadable: true, fault };
    }
    const bases = this.#judgeAll(this.#index.copies(base, this.#index.depthOf(object)));
    const { right, readable } = bases;
    if (right !== undefined) {
      const fault = isRight(this.#bytesOf(right)) ? undefined : this.#wrong(object);
      return { base: right, isReadable: true, fault };
    }
    const enough = readable.find((copy) => isRight(this.#bytesOf(copy)));
    if (enough !== undefined) return { base: enough, isReadable: true, fault: undefined };
    const fault = bases.fault ?? this.lostBase(object, base);
    return { base: readable[0], isReadable: readable.length > 0, fault };
  }

  /** For a copy that can be assembled. */
  #bytesOf(object: number): Uint8Array {
    const { base } = this.#judge(object);
    const old = base === undefined ? NOTHING : this.#bytesOf(base);
    return this.#partsOf(object).assemble(old);
  }

  #wrong(object: number): StoreDamage {
    const pack = this.#index.packOf(object)?.id ?? '';
    const id = toHex(this.#index.idOf(object));
    return this.#note(damaged(`packs/${pack}`, `does not hold the object ${id} as it was`));
  }

  #note<T extends SqlsyncError>(fault: T): T {
    if (fault instanceof StoreDamage) {
      if (!this.#found.has(fault.file)) this.#found.set(fault.file, fault);
    } else {
      this.#isUncertain = true;
    }
    return fault;
  }

  /** True if a pack does not match its name. */
  #isChanged({ id }: KnownPack): boolean {
    const isChanged = this.#changedPacks.get(id) ?? comparePackNow(this.#files, id).isChanged;
    this.#changedPacks.set(id, isChanged);
    return isChanged;
  }
}
