import { systemErrorCode } from '../../errors.ts';
import type { RawDatabase } from '../binding.ts';
import { identifier, quoteText } from '../dump/literals.ts';
import { readStoredStatement } from '../dump/stored-statement.ts';
import { missingFeature } from '../missing-feature.ts';

/** What `PRAGMA integrity_check` found, and what it could not check because this SQLite lacks something. */
export interface IntegrityFindings {
  /** Faults of the database, one sentence each; empty for a sound database. */
  readonly findings: string[];
  /** What was not checked, and why, one sentence each. It may be sound. */
  readonly unchecked: string[];
}

interface TableEntry {
  readonly name: string;
  /** The module of a virtual table. */
  readonly module: string | undefined;
}

/**
 * Checks a database. One table that needs a collation, function or tokenizer of its application ends `integrity_check`
 * as a whole; the tables are then checked one by one. Throws errors that are neither damage nor such a lack, such as
 * SQLITE_BUSY.
 */
export function findIntegrityFaults(database: RawDatabase): IntegrityFindings {
  try {
    const all = sort(check(database, 'integrity_check'));
    return { ...all, unchecked: [...all.unchecked, ...missingModules(database)] };
  } catch (error) {
    if (isDamage(error)) return { findings: [messageOf(error)], unchecked: [] };
    if (!isQuestionable(error)) throw error;
  }
  try {
    return checkEach(database, tablesOf(database));
  } catch (error) {
    if (isDamage(error) || isQuestionable(error)) return { findings: [messageOf(error)], unchecked: [] };
    throw error;
  }
}

function checkEach(database: RawDatabase, tables: readonly TableEntry[]): IntegrityFindings {
  const found: IntegrityFindings = { findings: [], unchecked: [] };
  // The schema's own check covers the free pages.
  for (const table of [{ name: 'sqlite_schema', module: undefined }, ...tables]) {
    if (table.module !== undefined && !hasModule(database, table.module)) continue;
    try {
      const { findings, unchecked } = sort(check(database, `integrity_check(${quoteText(table.name)})`));
      found.findings.push(...findings);
      found.unchecked.push(...unchecked);
    } catch (error) {
      const feature = isQuestionable(error) ? featureOf(database, table, error) : undefined;
      if (feature !== undefined)
        found.unchecked.push(
          `table ${table.name} needs ${feature}, which this SQLite does not have; ${rest(database, table, found.findings)}`,
        );
      else if (isDamage(error) || isQuestionable(error))
        found.findings.push(`table ${table.name}: ${messageOf(error)}`);
      else throw error;
    }
  }
  found.unchecked.push(...missingModules(database));
  return found;
}

function check(database: RawDatabase, pragma: string): string[] {
  return (database.prepare(`PRAGMA ${pragma}`).pluck().all() as string[]).filter((row) => row !== 'ok');
}

/** A virtual table reports as a finding what its module lacks. */
function sort(rows: readonly string[]): IntegrityFindings {
  const findings: string[] = [];
  const unchecked: string[] = [];
  for (const row of rows) {
    const feature = row.startsWith('unable to validate ') ? missingFeature(row) : undefined;
    if (feature === undefined) findings.push(row);
    else unchecked.push(`${row} (this SQLite does not have ${feature})`);
  }
  return { findings, unchecked };
}

/** The missing feature. FTS5 only says that something is wrong, until a search makes it name the cause. */
function featureOf(database: RawDatabase, { name, module }: TableEntry, error: unknown): string | undefined {
  const feature = missingFeature(messageOf(error));
  if (feature !== undefined || module === undefined) return feature;
  try {
    database.prepare(`SELECT 1 FROM ${identifier(name)} WHERE ${identifier(name)} MATCH 'a' LIMIT 1`).get();
    return undefined;
  } catch (reason) {
    return missingFeature(messageOf(reason));
  }
}

/** Checks what can be checked of a table that needs a missing feature, and says how far that went. */
function rest(database: RawDatabase, { name, module }: TableEntry, findings: string[]): string {
  if (module !== undefined)
    return 'the tables of its content were checked, its index was not compared with them';
  try {
    findings.push(...check(database, `quick_check(${quoteText(name)})`));
    return 'its pages were checked, its indexes were not compared with its rows';
  } catch (error) {
    if (isDamage(error)) findings.push(`table ${name}: ${messageOf(error)}`);
  }
  try {
    readRows(database, name);
    return 'its rows could be read, its indexes were not checked';
  } catch (error) {
    if (isDamage(error)) findings.push(`table ${name}: ${messageOf(error)}`);
    return 'it was not checked';
  }
}

/** Reads every value, including the overflow pages of text and blobs. */
function readRows(database: RawDatabase, name: string): void {
  const columns = database
    .prepare('SELECT name FROM pragma_table_xinfo(?) WHERE hidden <> 2')
    .pluck()
    .all(name) as string[];
  const values = columns.map((column) => `count(t.${identifier(column)} || '')`);
  database.prepare(`SELECT ${values.join(',')} FROM ${identifier(name)} AS t NOT INDEXED`).get();
}

function missingModules(database: RawDatabase): string[] {
  return tablesOf(database).flatMap(({ name, module }) =>
    module === undefined || hasModule(database, module)
      ? []
      : [
          `table ${name} needs the module ${module}, which this SQLite does not have; the tables of its content were checked as such`,
        ],
  );
}

function tablesOf(database: RawDatabase): TableEntry[] {
  const rows = database
    .prepare(`SELECT name, sql FROM sqlite_schema WHERE type = 'table' AND typeof(name) = 'text'`)
    .all() as { name: string; sql: unknown }[];
  return rows.map(({ name, sql }) => {
    const statement = readStoredStatement(Buffer.from(typeof sql === 'string' ? sql : ''));
    return { name, module: 'why' in statement ? undefined : statement.module };
  });
}

function hasModule(database: RawDatabase, module: string): boolean {
  return (
    database.prepare('SELECT 1 FROM pragma_module_list WHERE name = ? COLLATE NOCASE').get(module) !==
    undefined
  );
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** An invalid page or page 1; not a lock, nor a lack of memory. */
function isDamage(error: unknown): boolean {
  const code = systemErrorCode(error);
  return code === 'SQLITE_NOTADB' || code?.startsWith('SQLITE_CORRUPT') === true;
}

/** A schema that SQLite cannot parse, or a feature that it lacks. */
function isQuestionable(error: unknown): boolean {
  const code = systemErrorCode(error);
  return code === 'SQLITE_ERROR' || code?.startsWith('SQLITE_ERROR_') === true;
}
