import { setTimeout as delay } from 'node:timers/promises';
import Database from 'better-sqlite3';

/** An application that updates a page in each transaction, with a short pause between them, until it is killed. */
const [path = ''] = process.argv.slice(2);
const database = new Database(path, { timeout: 60_000 });
const update = database.prepare('UPDATE t SET x = randomblob(3000) WHERE id = ?');
for (let i = 1; ; i++) {
  update.run(1 + ((i * 7919) % 2000));
  if (i === 10) process.send?.('writes');
  // Between two transactions the lock is free, as it is in any application.
  await delay(2);
}
