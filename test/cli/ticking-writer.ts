/**
 * An application that writes to a WAL database without a pause until its parent is gone or ends it: two
 * counters that are equal in every committed state. Ends with the number of its transactions.
 */
import Database from 'better-sqlite3';
import { setImmediate as nextTick } from 'node:timers/promises';

const [path = ''] = process.argv.slice(2);
const database = new Database(path, { timeout: 0 });
database.pragma('journal_mode = WAL');
database.exec(
  "CREATE TABLE counter (name TEXT PRIMARY KEY, value INTEGER); INSERT INTO counter VALUES ('a', 0), ('b', 0); CREATE TABLE log (id INTEGER PRIMARY KEY, text)",
);
const stop = new AbortController();
process.once('message', () => stop.abort());
process.once('disconnect', () => process.exit(1));
process.send?.('started');
let ticks = 0;
while (!stop.signal.aborted) {
  database.transaction(() => {
    database.prepare(`UPDATE counter SET value = value + 1 WHERE name = 'a'`).run();
    database.prepare(`INSERT OR REPLACE INTO log VALUES (?, hex(randomblob(100)))`).run(ticks % 500);
    database.prepare(`UPDATE counter SET value = value + 1 WHERE name = 'b'`).run();
  })();
  ticks++;
  if (ticks % 20 === 0) await nextTick();
}
database.close();
process.send?.(ticks, () => process.disconnect());
