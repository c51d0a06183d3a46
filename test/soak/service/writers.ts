import { statSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import Database from 'better-sqlite3';
import { Random } from '../../../fixtures/random.ts';
import { commitNext } from '../storm/history.ts';

/**
 * A process that commits the next state of one of several databases after another, as an application opens, writes and
 * closes it: `writers.ts SEED CELLS PAUSE_MS [HISTORY_SEED PATH]…`. It ends with its parent, and after each order stays
 * still until the next one.
 */
const [seed = '1', cells = '1', pauseMs = '20', ...pairs] = process.argv.slice(2);
const random = new Random(Number(seed));
const databases = pairs.flatMap((historySeed, i) =>
  i % 2 === 0 ? [{ path: pairs[i + 1] as string, seed: Number(historySeed), cells: Number(cells) }] : [],
);
const MAX_VACUUM_BYTES = 64 * 2 ** 20;
let isStill = false;

process.on('message', () => {
  isStill = !isStill;
  process.send?.('done');
});
process.once('disconnect', () => process.exit());
process.send?.('started');
for (;;) {
  if (!isStill) {
    const { path, ...history } = random.pick(databases);
    const database = new Database(path, { timeout: 30_000, fileMustExist: true });
    commitNext(database, history);
    // Everybody else would wait for one of 1 GB for longer than a copy waits.
    if (random.chance(0.05) && statSync(path).size <= MAX_VACUUM_BYTES) database.exec('VACUUM');
    database.close();
  }
  await delay(Number(pauseMs));
}
