import { SqlsyncError } from '../../errors.ts';
import type { CachedStatement } from '../sql/statements.ts';
import { StatementCache, requireText } from '../sql/statements.ts';

/** White space, comments and empty statements, as SQLite's tokenizer skips them. */
const SKIPPED = /(?:[\s;]|--[^\n]*|\/\*[^]*?(?:\*\/|$))*/y;
const WORD = /[a-z_]\w*/iy;
/** Plain spelling only: a PRAGMA with a comment or a quoted name in it is refused. */
const PRAGMA = /(?:\w+\s*\.\s*)?(\w+)\s*/y;

const QUERIES = new Set(['SELECT', 'VALUES', 'WITH']);

/** All other words that can begin a statement of SQLite. */
const WRITING = new Set(
  `ALTER ANALYZE ATTACH BEGIN COMMIT CREATE DELETE DETACH DROP END INSERT REINDEX RELEASE REPLACE ROLLBACK SAVEPOINT
  UPDATE VACUUM`.split(/\s+/),
);

/** PRAGMAs that return something and change nothing if they have no argument. */
const TELLING_PRAGMAS = new Set(
  `application_id auto_vacuum busy_timeout cache_size collation_list compile_options data_version database_list
  encoding foreign_keys freelist_count function_list journal_mode journal_size_limit max_page_count mmap_size
  module_list page_count page_size pragma_list query_only recursive_triggers schema_version secure_delete synchronous
  temp_store user_version wal_autocheckpoint`.split(/\s+/),
);

/** PRAGMAs that describe the table or index in their argument. */
const ASKING_PRAGMAS = new Set(
  `foreign_key_check foreign_key_list index_info index_list index_xinfo integrity_check quick_check table_info
  table_list table_xinfo`.split(/\s+/),
);

/**
 * The statements of a connection that only reads. Throws READ_ONLY for every other statement.
 *
 * The connection could not change the database anyway: it is opened for reading only, with `query_only`. But it could
 * change itself: leave a transaction open that pins the WAL, end the snapshot it is in, attach another file, or turn
 * `query_only` off. SQLite calls such statements read-only, and executes some PRAGMAs while it prepares them, even
 * behind EXPLAIN. So an allowlist judges the text first, then SQLite judges too (`WITH … INSERT … RETURNING`).
 */
export class ReadStatements extends StatementCache {
  override prepareFresh(sql: string): CachedStatement {
    requireText(sql);
    const keyword = readingKeyword(sql);
    const prepared = super.prepareFresh(sql);
    if (keyword === undefined) throw refusal(prepared.keyword);
    // For SQLite, even a query of the journal mode is a write; the allowlist has judged PRAGMAs.
    if (!prepared.readonly && keyword !== 'PRAGMA') throw refusal(prepared.keyword);
    return prepared;
  }
}

/** As {@link ReadStatements}, with rows as arrays of their columns. */
export class ReadArrayStatements extends ReadStatements {
  override prepareFresh(sql: string): CachedStatement {
    const prepared = super.prepareFresh(sql);
    prepared.statement.raw(true);
    return prepared;
  }
}

/**
 * SELECT, VALUES, WITH or PRAGMA; undefined for a text that SQLite itself will reject. Throws READ_ONLY for the other
 * statements of SQLite, and for a PRAGMA that sets something.
 */
function readingKeyword(sql: string): string | undefined {
  let word = wordAt(sql, 0);
  if (word.text === 'EXPLAIN') {
    word = wordAt(sql, word.end);
    if (word.text === 'QUERY') word = wordAt(sql, wordAt(sql, word.end).end);
  }
  if (QUERIES.has(word.text)) return word.text;
  if (word.text !== 'PRAGMA') {
    // Preparing a PRAGMA may execute it, so SQLite never sees a text that could be one.
    if (WRITING.has(word.text) || /pragma/i.test(sql)) throw refusal(word.text);
    return undefined;
  }
  PRAGMA.lastIndex = skip(sql, word.end);
  const name = PRAGMA.exec(sql)?.[1]?.toLowerCase() ?? '';
  const hasArgument = skip(sql, PRAGMA.lastIndex) < sql.length;
  if (!ASKING_PRAGMAS.has(name) && (hasArgument || !TELLING_PRAGMAS.has(name))) {
    throw refusal(`PRAGMA ${name}`);
  }
  return 'PRAGMA';
}

/** The word after what is skipped, in capitals; '' if something else follows. */
function wordAt(sql: string, offset: number): { text: string; end: number } {
  WORD.lastIndex = skip(sql, offset);
  const text = WORD.exec(sql)?.[0] ?? '';
  return { text: text.toUpperCase(), end: WORD.lastIndex };
}

function skip(sql: string, offset: number): number {
  SKIPPED.lastIndex = offset;
  SKIPPED.exec(sql);
  return SKIPPED.lastIndex;
}

function refusal(what: string): SqlsyncError {
  const named = what.trim() === '' ? 'this statement' : what.trim();
  return new SqlsyncError('READ_ONLY', `${named} on a connection that only reads`, {
    hint: 'Write with db.write or a transaction; for one view of several queries use db.read.snapshot(fn).',
  });
}
