import { setImmediate as nextTick } from 'node:timers/promises';
import Database from 'better-sqlite3';
import { Random } from '../../fixtures/random.ts';

/**
 * A process that moves pages between a WAL and its file in every way, for ever: transactions of all sizes,
 * all checkpoint modes, VACUUM, truncation. It ends when its parent tells it or is gone.
 */
const [path = '', seed = '1'] = process.argv.slice(2);
const random = new Random(Number(seed));
const database = new Database(path, { timeout: 20 });
const stop = new AbortController();
process.once('message', () => stop.abort());
process.once('disconnect', () => stop.abort());

const ACTIONS: (() => void)[] = [
  () => insertRows(1),
  () => insertRows(random.integer(10, 200)),
  () =>
    void database
      .prepare('UPDATE t SET body = ? WHERE id % ? = 0')
      .run(random.bytes(random.integer(10, 900)), random.integer(2, 40)),
  () => void database.prepare('DELETE FROM t WHERE id % ? = 1').run(random.integer(2, 30)),
  () => void database.prepare('DELETE FROM t WHERE id > ?').run(random.integer(100, 900)),
  () => void database.pragma('wal_checkpoint(PASSIVE)'),
  () => void database.pragma('wal_checkpoint(FULL)'),
  () => void database.pragma('wal_checkpoint(RESTART)'),
  () => void database.pragma('wal_checkpoint(TRUNCATE)'),
  () => void (random.chance(0.3) && database.exec('VACUUM')),
];

function insertRows(count: number): void {
  database.transaction(() => {
    const insert = database.prepare('INSERT INTO t (body) VALUES (?)');
    for (let i = 0; i < count; i++) insert.run(random.bytes(random.integer(1, 2000)));
  })();
}

process.send?.('started');
while (!stop.signal.aborted) {
  try {
    random.pick(ACTIONS)();
  } catch (error) {
    // Two of these and a snapshot get in each other's way all the time, as they should.
    if (!(error instanceof Database.SqliteError) || !error.code.startsWith('SQLITE_BUSY')) throw error;
  }
  await nextTick();
}
database.close();
process.disconnect();
