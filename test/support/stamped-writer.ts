import { setTimeout as delay } from 'node:timers/promises';
import Database from 'better-sqlite3';
import { Random } from '../../fixtures/random.ts';
import { addCells, createStamped, stampAll, nextStamp } from './stamped-database.ts';

/**
 * A process that does to a stamped database everything that its owner may do, for ever: `stamped-writer.ts
 * PATH SEED KINDS PAUSE_MS`. Its parent says `pause` (it closes its connection and answers), `resume`,
 * `report`, `hold` (a read transaction), and `do KIND`, which it does once, now; it ends with its parent.
 */
export type WriterOrder = 'pause' | 'resume' | 'report' | 'hold' | `do ${string}`;

export interface WriterReport {
  /** How often each kind was done, and how often SQLite was busy instead. */
  readonly done: Record<string, number>;
  readonly busy: number;
  /**
   * The longest time in ms from the call to the end of a plain transaction, and the number of those for which
   * SQLite was too busy.
   */
  readonly worstMs: number;
  readonly rssBytes: number;
}

const [path = '', seed = '1', kinds = 'write', pauseMs = '0'] = process.argv.slice(2);
const random = new Random(Number(seed));
/** An application's own checkpoints wait for readers with the writer's lock held, also for those of a sync. */
const BUSY_TIMEOUT_MS = 25;
const MAX_CELLS = 1500;
/**
 * SQLITE_IOERR_SHMLOCK: another process held the lock of the WAL index, because it was making or removing it,
 * as a change of journal_mode does. SQLite gives this code if the next thing is a checkpoint.
 */
const IN_THE_WAY = /^SQLITE_(BUSY|LOCKED|IOERR_SHMLOCK)/;
let database: Database.Database | undefined;
let paused = false;
let done: Record<string, number> = {};
let busy = 0;
let worstMs = 0;

const ACTIONS: Record<string, (db: Database.Database) => void> = {
  write: (db) => transaction(db, () => addCells(db, random, random.integer(0, 5))),
  insertMany: (db) => transaction(db, () => addCells(db, random, random.integer(50, 400))),
  deleteMany: (db) =>
    transaction(db, () => void db.prepare('DELETE FROM cell WHERE id % ? = 0').run(random.integer(2, 5))),
  deleteEnd: (db) =>
    transaction(db, () => {
      const kept = random.integer(50, 300);
      db.prepare('DELETE FROM cell WHERE id > (SELECT min(id) FROM cell) + ?').run(kept);
    }),
  rewrite: (db) =>
    transaction(db, () => void db.exec('UPDATE cell SET body = randomblob(length(body)) WHERE id % 3 = 0')),
  recreate: (db) =>
    inTransaction(db, () => {
      dropAll(db);
      createStamped(db);
      addCells(db, random, random.integer(1, 200));
      stampAll(db, nextStamp());
    }),
  empty: (db) => {
    inTransaction(db, () => dropAll(db));
    if (random.chance(0.5)) db.exec('VACUUM');
  },
  passive: (db) => void db.pragma('wal_checkpoint(PASSIVE)'),
  full: (db) => void db.pragma('wal_checkpoint(FULL)'),
  restart: (db) => void db.pragma('wal_checkpoint(RESTART)'),
  truncate: (db) => void db.pragma('wal_checkpoint(TRUNCATE)'),
  vacuum: (db) => void db.exec('VACUUM'),
  incrementalVacuum: (db) => void db.pragma('incremental_vacuum'),
  autoVacuum: (db) => {
    db.pragma(`auto_vacuum = ${random.pick(['none', 'full', 'incremental'])}`);
    db.exec('VACUUM');
  },
  journalMode: (db) =>
    void db.pragma(`journal_mode = ${random.pick(['wal', 'wal', 'delete', 'truncate', 'persist'])}`),
  pageSize: (db) => {
    // Only the owner of a database in rollback mode can change it.
    db.pragma('journal_mode = delete');
    db.pragma(`page_size = ${random.pick([512, 1024, 4096])}`);
    db.exec('VACUUM');
    db.pragma('journal_mode = wal');
  },
  /** Goes away and comes back, now and then with the checkpoint of a last close. */
  reopen: () => close(),
};

function transaction(db: Database.Database, change: () => void): void {
  inTransaction(db, () => {
    if (!hasTables(db)) createStamped(db);
    change();
    db.prepare('DELETE FROM cell WHERE id <= (SELECT max(id) FROM cell) - ?').run(MAX_CELLS);
    stampAll(db, nextStamp());
  });
}

function inTransaction(db: Database.Database, change: () => void): void {
  const startedAt = performance.now();
  try {
    db.transaction(change).immediate();
  } finally {
    worstMs = Math.max(worstMs, performance.now() - startedAt);
  }
}

function hasTables(db: Database.Database): boolean {
  return db.prepare("SELECT 1 FROM sqlite_schema WHERE name = 'cell'").get() !== undefined;
}

function dropAll(db: Database.Database): void {
  for (const table of ['cell', 'total']) db.exec(`DROP TABLE IF EXISTS ${table}`);
}

function open(): Database.Database {
  if (database !== undefined) return database;
  const opened = new Database(path, { timeout: BUSY_TIMEOUT_MS, fileMustExist: true });
  opened.pragma('synchronous = OFF');
  return (database = opened);
}

/** Keeps a read transaction open, until it pauses. */
function hold(): void {
  paused = true;
  const reader = open();
  reader.exec('BEGIN');
  reader.prepare('SELECT count(*) FROM sqlite_schema').get();
}

function close(): void {
  database?.close();
  database = undefined;
}

process.on('message', (order: WriterOrder) => {
  if (order.startsWith('do ')) act(order.slice(3));
  if (order === 'hold') hold();
  if (order === 'pause') close();
  paused = order === 'pause' || (paused && order !== 'resume');
  const report: WriterReport = { done, busy, worstMs, rssBytes: process.memoryUsage.rss() };
  process.send?.(report);
  if (order === 'report') {
    done = {};
    busy = 0;
    worstMs = 0;
  }
});
process.once('disconnect', () => process.exit());

const chosen = kinds === 'all' ? Object.keys(ACTIONS) : kinds.split(',');
process.send?.('started');
for (;;) {
  if (!paused) act(random.pick(chosen));
  await delay(paused ? 2 : Number(pauseMs));
}

function act(kind: string): void {
  try {
    ACTIONS[kind]?.(open());
    done[kind] = (done[kind] ?? 0) + 1;
  } catch (error) {
    // Processes that all do such things get in each other's way all the time, as they should.
    if (!(error instanceof Database.SqliteError) || !IN_THE_WAY.test(error.code)) throw error;
    busy++;
    if (error.code === 'SQLITE_IOERR_SHMLOCK') close();
  }
}
