/**
 * A process that writes through the pools until it is killed:
 *
 *     node writing-child.ts PATH NAME count     numbers its rows, and prints a line for each acknowledged one
 *     node writing-child.ts PATH NAME hold      tells `held` with a row written and its transaction open, for ever
 */
import { writeSync } from 'node:fs';
import { openDatabase } from '../../../src/pool/database.ts';

const [path = '', name = '', mode = 'count'] = process.argv.slice(2);
const INSERT = 'INSERT INTO log (writer, number) VALUES (?, ?)';
const STDOUT = 1;

const db = await openDatabase(path);
if (mode === 'hold') {
  setInterval(() => undefined, 1000);
  await db.write.transaction(async (tx) => {
    await tx.run(INSERT, [name, -1]);
    writeSync(STDOUT, 'held\n');
    await new Promise(() => undefined);
  });
}
for (let number = 0; ; number += 1) {
  await db.write.transaction(async (tx) => {
    await tx.run(INSERT, [name, number]);
    await new Promise((resolve) => setImmediate(resolve));
    await tx.run('UPDATE total SET n = n + 1');
  });
  writeSync(STDOUT, `${number}\n`);
}
