import { setTimeout as delay } from 'node:timers/promises';
import Database from 'better-sqlite3';
import { Random } from '../../../fixtures/random.ts';
import { commitNext } from './history.ts';

/**
 * A process that commits one state after another, with every kind of checkpoint, VACUUM and leaving between them:
 * `writer.ts PATH HISTORY_SEED CELLS SEED PAUSE_MS`. A transaction that SQLite refuses ends it with an error, since no
 * sync may do that to a writer. It ends with its parent.
 */
const [path = '', historySeed = '1', cells = '1', seed = '1', pauseMs = '10'] = process.argv.slice(2);
const options = { seed: Number(historySeed), cells: Number(cells) };
const random = new Random(Number(seed));

/** As an application has it. Checkpoints do not wait: they would hold the write lock until the readers are done. */
const PATIENCE_MS = 30_000;

const ACTS: readonly ((database: Database.Database) => void)[] = [
  (database) => void database.pragma('wal_checkpoint(PASSIVE)'),
  (database) => void database.pragma('wal_checkpoint(FULL)'),
  (database) => void database.pragma('wal_checkpoint(RESTART)'),
  (database) => void database.pragma('wal_checkpoint(TRUNCATE)'),
  (database) => void database.exec('VACUUM'),
];

function open(): Database.Database {
  const opened = new Database(path, { timeout: PATIENCE_MS, fileMustExist: true });
  opened.pragma('synchronous = NORMAL');
  return opened;
}

/** Codes that SQLite may give a writer that asked for the whole file beside another writer. */
function actNow(database: Database.Database): void {
  database.pragma('busy_timeout = 0');
  try {
    random.pick(ACTS)(database);
  } catch (error) {
    if (!(error instanceof Database.SqliteError) || !/^SQLITE_(BUSY|LOCKED)/.test(error.code)) throw error;
  } finally {
    database.pragma(`busy_timeout = ${PATIENCE_MS}`);
  }
}

process.on('message', () => process.send?.('done'));
process.once('disconnect', () => process.exit());
process.send?.('started');
let database = open();
for (;;) {
  commitNext(database, options);
  if (random.chance(0.15)) actNow(database);
  if (random.chance(0.02)) {
    database.close();
    database = open();
  }
  await delay(random.integer(0, Number(pauseMs) * 2));
}
