import { systemErrorCode } from '../../errors.ts';
import { openRaw } from '../binding.ts';
import type { RawDatabase } from '../binding.ts';
import { missingFeature } from '../missing-feature.ts';

/** An entry of `sqlite_schema`. */
export interface SchemaEntry {
  readonly type: string;
  readonly name: string;
  readonly owner: string;
  readonly sql: string;
  /** A virtual table has no pages of its own, like views and triggers. */
  readonly isVirtual: boolean;
}

/**
 * Lets SQLite itself judge the statements of a dump, one by one, in a database in memory: it loads the statement as
 * part of a schema. That executes nothing, and needs no function, collation or module of an application.
 */
export class SchemaJudge {
  readonly #scratch: RawDatabase = openRaw(':memory:');

  constructor() {
    this.#scratch.unsafeMode(true);
    // Pages that schema entries can use as their roots: 2 and 3.
    this.#scratch.exec('CREATE TABLE first (x); CREATE TABLE second (x)');
  }

  /**
   * Says why the entry is not one statement that creates exactly what the entry says, by type, name and table;
   * undefined if it is. `owner` is the table or view that an index or a trigger needs.
   */
  refusal(entry: SchemaEntry, owner?: SchemaEntry): string | undefined {
    const before = owner === undefined ? [] : [owner];
    const refused = this.#load([...before, entry]);
    if (refused !== undefined) return refused;
    // SQLite ignores what follows the first statement, so it accepts this only if the statement ended before.
    const isSeveral = this.#load([...before, { ...entry, sql: `${entry.sql}\n)` }]) === undefined;
    return isSeveral ? 'its SQL is more than one statement' : undefined;
  }

  /** The feature that this SQLite lacks to execute the statement, as in "the function fold". */
  missing(entry: SchemaEntry, owner?: SchemaEntry): string | undefined {
    this.#load(owner === undefined ? [] : [owner]);
    try {
      this.#scratch.prepare(entry.sql);
      return undefined;
    } catch (error) {
      return error instanceof Error ? missingFeature(error.message) : undefined;
    }
  }

  close(): void {
    this.#scratch.close();
  }

  #load(entries: readonly SchemaEntry[]): string | undefined {
    const scratch = this.#scratch;
    scratch.pragma('writable_schema = ON');
    scratch.exec('DELETE FROM sqlite_schema');
    const insert = scratch.prepare('INSERT INTO sqlite_schema VALUES (?, ?, ?, ?, ?)');
    for (const [index, { type, name, owner, sql, isVirtual }] of entries.entries()) {
      const hasPages = (type === 'table' && !isVirtual) || type === 'index';
      insert.run(type, name, owner, hasPages ? 2 + index : 0, sql);
    }
    try {
      scratch.pragma('writable_schema = RESET');
      scratch.prepare('SELECT 1 FROM sqlite_schema').get();
      return undefined;
    } catch (error) {
      if (systemErrorCode(error)?.startsWith('SQLITE_') !== true) throw error;
      const text = (error as Error).message;
      return `its SQL is no statement that creates it: ${text.replace(/^malformed database schema \(.*?\) - /s, '')}`;
    }
  }
}
