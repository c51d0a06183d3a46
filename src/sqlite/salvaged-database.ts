import { openRaw } from './binding.ts';
import type { RawDatabase } from './binding.ts';
import { DatabaseReader } from './database-reader.ts';
import type { SchemaObject } from './database-reader.ts';
import { databaseUri } from './database-uri.ts';

/**
 * All tables and indexes with their own b-tree, in a file that no other program uses. Throws better-sqlite3's errors.
 */
export function readSchemaObjects(path: string): SchemaObject[] {
  const reader = new DatabaseReader(path, { immutable: true });
  try {
    return reader.schemaObjects();
  } finally {
    reader.close();
  }
}

/**
 * Rebuilds an index from its table, in a file that no other program uses and that is in rollback mode. Uses no journal:
 * after a failure the file is damaged. Throws better-sqlite3's errors.
 */
export function reindex(path: string, name: string): void {
  const database = openRaw(databaseUri(path, { mode: 'rw' }), { timeout: 0 });
  try {
    setUp(database);
    database.exec(`REINDEX main."${name.replaceAll('"', '""')}"`);
  } finally {
    database.close();
  }
}

function setUp(database: RawDatabase): void {
  database.pragma('trusted_schema = OFF');
  database.pragma('journal_mode = OFF');
  database.pragma('synchronous = OFF');
}
