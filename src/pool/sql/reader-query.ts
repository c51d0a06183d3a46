const SELECT = /^\s*select\b/i;

/** What SQLite keeps for each connection: a reader has none of what the writer wrote or made. */
const OF_A_CONNECTION =
  /\b(?:(?:total_)?changes|last_insert_rowid)\s*\(|\btemp\s*["'`\]]?\s*\.|\bsqlite_temp_/i;

/**
 * True for a text that any connection answers alike; for query builders, whose statements do not say what they are.
 * The read pool refuses what only looks like a query.
 */
export function isReaderQuery(sql: string): boolean {
  return SELECT.test(sql) && !needsWriter(sql);
}

/** True if a SELECT asks for something of the connection that writes. */
export function needsWriter(sql: string): boolean {
  return OF_A_CONNECTION.test(sql);
}
