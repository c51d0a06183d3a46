import type { BtreeKind, PagePointer } from '../../pages/btree-page.ts';
import type { SchemaObject } from '../../sqlite/database-reader.ts';
import type { PageFile } from './page-file.ts';

/** The role of a lost page, as far as the existing pages show it. */
export interface LostPlace {
  readonly object: SchemaObject;
  readonly role: 'root' | 'btree' | 'overflow';
  readonly kind: BtreeKind;
  /** The pointer to an overflow page. */
  readonly pointer: PagePointer;
}

export interface Places {
  /** Lost pages with their roles, by page. */
  readonly lost: ReadonlyMap<number, LostPlace>;
  /** The known pages of each object, by its name. */
  pagesOf(object: SchemaObject): number[];
}

/** Walks all b-trees as far as their pages exist. */
export function findPlaces(
  file: PageFile,
  holes: ReadonlySet<number>,
  objects: readonly SchemaObject[],
): Places {
  const seen = new Uint8Array(file.pageCount + 1);
  const lost = new Map<number, LostPlace>();
  const walk = new Walk(file, holes, seen, lost);
  for (const object of objects) walk.visitAll(object);
  return {
    lost,
    pagesOf(object) {
      const pages: number[] = [];
      const own = new Walk(file, holes, new Uint8Array(file.pageCount + 1), new Map(), pages);
      own.visitAll(object);
      return pages;
    },
  };
}

interface Step {
  readonly pointer: PagePointer;
  readonly kind: BtreeKind;
}

class Walk {
  readonly #file: PageFile;
  readonly #holes: ReadonlySet<number>;
  /** 1 for each page that was met. */
  readonly #seen: Uint8Array;
  readonly #lost: Map<number, LostPlace>;
  readonly #pages: number[] | undefined;
  readonly #waiting: Step[] = [];

  constructor(
    file: PageFile,
    holes: ReadonlySet<number>,
    seen: Uint8Array,
    lost: Map<number, LostPlace>,
    pages?: number[],
  ) {
    this.#file = file;
    this.#holes = holes;
    this.#seen = seen;
    this.#lost = lost;
    this.#pages = pages;
  }

  visitAll(object: SchemaObject): void {
    const root = { page: object.rootPage, at: 0 };
    this.#waiting.push({ pointer: root, kind: object.type });
    for (let step = this.#waiting.pop(); step !== undefined; step = this.#waiting.pop()) {
      if (!this.#meet(step.pointer.page)) continue;
      const role = step.pointer === root ? 'root' : 'btree';
      if (this.#holes.has(step.pointer.page)) this.#lost.set(step.pointer.page, { object, role, ...step });
      else this.#enter(step.pointer.page, object);
    }
  }

  #enter(page: number, object: SchemaObject): void {
    const parsed = this.#file.readBtreePage(page);
    if (parsed === undefined) return;
    const { kind } = parsed;
    for (const { child, overflow } of parsed.cells) {
      if (child !== undefined) this.#waiting.push({ pointer: child, kind });
      if (overflow !== undefined) this.#follow(page, overflow, kind, object);
    }
    if (parsed.right !== undefined) this.#waiting.push({ pointer: parsed.right, kind });
  }

  #follow(
    from: number,
    overflow: PagePointer & { readonly pages: number },
    kind: BtreeKind,
    object: SchemaObject,
  ): void {
    let pointer: PagePointer = { page: from, at: overflow.at };
    for (let page = overflow.page, i = 0; i < overflow.pages && this.#meet(page); i++) {
      if (this.#holes.has(page)) {
        this.#lost.set(page, { object, role: 'overflow', kind, pointer });
        return;
      }
      pointer = { page, at: 0 };
      page = this.#file.readNumber(page, 0);
    }
  }

  /** Returns false for an impossible page, and for one that was met before, as in a malformed database. */
  #meet(page: number): boolean {
    if (!this.#file.has(page) || this.#seen[page] === 1) return false;
    this.#seen[page] = 1;
    this.#pages?.push(page);
    return true;
  }
}
