/**
 * A process that writes a database as no application should, for ever: `hostile-writer.ts PATH SEED`. Most of what it
 * does changes few pages. It ends with its parent, or is killed.
 */
import { setTimeout as delay } from 'node:timers/promises';
import Database from 'better-sqlite3';
import { applyStep, randomStep } from '../../fixtures/history.ts';
import { Random } from '../../fixtures/random.ts';

const [path = '', seed = '1'] = process.argv.slice(2);
const random = new Random(Number(seed));
let database: Database.Database | undefined;

function open(): Database.Database {
  if (database === undefined) {
    database = new Database(path, { timeout: 20 });
    database.pragma('synchronous = OFF');
    database.pragma(`wal_autocheckpoint = ${random.pick([0, 0, 100, 1000])}`);
    database.pragma(`cache_size = ${random.pick([1, 5, 2000])}`);
  }
  return database;
}

const update = (db: Database.Database): unknown =>
  db.prepare('UPDATE item SET amount = amount + 1 WHERE id % 2000 = ?').run(random.integer(0, 1999));

function spill(db: Database.Database, end: string): void {
  db.exec('BEGIN IMMEDIATE; UPDATE item SET payload = randomblob(300) WHERE id % 11 = 3; SAVEPOINT s');
  db.exec('UPDATE item SET payload = randomblob(200) WHERE id % 7 = 3; ROLLBACK TO s');
  db.exec(end);
}

const ACTIONS: readonly [weight: number, action: (db: Database.Database) => unknown][] = [
  [300, update],
  [20, (db) => applyStep(db, { ...randomStep(random), rows: random.integer(1, 5) })],
  [10, (db) => spill(db, random.pick(['ROLLBACK', 'COMMIT']))],
  [3, (db) => db.pragma(`wal_checkpoint(${random.pick(['PASSIVE', 'FULL', 'RESTART', 'TRUNCATE'])})`)],
  [1, (db) => db.exec('VACUUM')],
  [1, (db) => db.pragma(`journal_size_limit = ${random.pick([-1, 0, 20_000])}`)],
  [
    1,
    (db) => {
      db.pragma('journal_mode = delete');
      update(db);
      db.pragma('journal_mode = wal');
    },
  ],
  [
    1,
    (db) => {
      db.pragma('locking_mode = EXCLUSIVE');
      update(db);
      db.pragma('locking_mode = NORMAL');
      update(db);
    },
  ],
  [
    2,
    (db) => {
      db.close();
      database = undefined;
    },
  ],
];

const chosen = ACTIONS.flatMap(([weight, action]) => Array.from({ length: weight }, () => action));
process.once('disconnect', () => process.exit());
process.send?.('started');
for (;;) {
  try {
    const db = open();
    if (db.inTransaction) db.exec('ROLLBACK');
    random.pick(chosen)(db);
  } catch {
    // Such writers get in each other's way, and in ours, all the time.
    if (random.chance(0.2)) {
      database?.close();
      database = undefined;
    }
  }
  await delay(random.pick([0, 2, 10, 50, 100]));
}
