import { setTimeout as delay } from 'node:timers/promises';
import Database from 'better-sqlite3';
import { Random } from '../../fixtures/random.ts';
import { readStamp } from '../support/stamped-database.ts';

/**
 * A reader of replicas, for ever: `reader.ts SEED REPLICA…`. In each of its transactions a replica has to be
 * one snapshot, though syncs change it. Its parent says `pause` (it closes all) and `resume`.
 */
export interface ReaderReport {
  readonly reads: number;
  /**
   * Reads that SQLite refused: because of a lock, or of the journal of a killed sync, which only a writer may
   * roll back.
   */
  readonly refused: number;
}

const REFUSALS = /^SQLITE_(BUSY|LOCKED|READONLY_ROLLBACK|READONLY_RECOVERY|CANTOPEN)/;

const [seed = '1', ...replicas] = process.argv.slice(2);
const random = new Random(Number(seed));
const open = new Map<string, Database.Database>();
let paused = false;
let reads = 0;
let refused = 0;

function read(path: string): void {
  try {
    const database = open.get(path) ?? new Database(path, { readonly: true, timeout: 0 });
    open.set(path, database);
    database.transaction(() => readStamp(database, path))();
    reads++;
  } catch (error) {
    if (!(error instanceof Database.SqliteError) || !REFUSALS.test(error.code)) throw error;
    refused++;
  }
  // Either with a connection from before the sync, or with a new one.
  if (random.chance(0.1)) close(path);
}

function close(path: string): void {
  open.get(path)?.close();
  open.delete(path);
}

process.on('message', (order: 'pause' | 'resume') => {
  paused = order === 'pause';
  if (paused) for (const path of open.keys()) close(path);
  const report: ReaderReport = { reads, refused };
  process.send?.(report);
});
process.once('disconnect', () => process.exit());
process.send?.('started');
for (;;) {
  if (!paused) read(random.pick(replicas));
  await delay(5);
}
