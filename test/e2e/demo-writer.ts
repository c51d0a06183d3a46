import { setTimeout as delay } from 'node:timers/promises';
import Database from 'better-sqlite3';

/**
 * The writer of the demo: it commits up to a thousand small transactions a second, never waits for a lock,
 * and counts its commits.
 */
const database = new Database(process.argv[2], { timeout: 0 });
const update = database.prepare('UPDATE events SET payload = payload || ?, at = at + 1 WHERE id = ?');
const highest = database.prepare<[], number>('SELECT max(id) FROM events').pluck().get() ?? 1;
const commit = database.transaction((id: number) => update.run('.', id));

let stopped = false;
process.once('message', () => (stopped = true));

const report = { commits: 0, busy: 0, worstMs: 0 };
for (let i = 0; !stopped; i++) {
  const startedAt = performance.now();
  try {
    commit.immediate(1 + ((i * 104_729) % highest));
    report.commits++;
  } catch (error) {
    if (!(error instanceof Database.SqliteError) || error.code !== 'SQLITE_BUSY') throw error;
    report.busy++;
  }
  report.worstMs = Math.max(report.worstMs, performance.now() - startedAt);
  if (i === 0) process.send?.('started');
  await delay(1);
}
database.close();
process.send?.(report);
process.disconnect();
