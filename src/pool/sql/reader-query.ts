const SELECT = /^\s*select\b/i;

/** State that SQLite keeps for each connection: a reader has none of the writer's. */
const OF_A_CONNECTION =
  /\b(?:(?:total_)?changes|last_insert_rowid)\s*\(|\btemp\s*["'`\]]?\s*\.|\bsqlite_temp_/i;

/**
 * True for a text that any connection answers alike. For query builders, whose statements do not say what they are. The
 * read pool refuses statements that only look like queries.
 */
export function isReaderQuery(sql: string): boolean {
  return SELECT.test(sql) && !needsWriter(sql);
}

/** True if a SELECT reads the state of the writing connection. */
export function needsWriter(sql: string): boolean {
  return OF_A_CONNECTION.test(sql);
}
