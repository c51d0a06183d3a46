/** `node pools-child.ts PATH`: an application that runs each text of SQL that it is sent on the writer of its pools. */
import { openDatabase } from '../../src/pool/database.ts';

const [, , path = ''] = process.argv;
const db = await openDatabase(path, { busyTimeoutMs: 60_000 });
process.on('message', (sql: string) => {
  void write(sql).then(() => process.send?.('written'));
});
process.on('disconnect', () => void db.close());
process.send?.('open');

/** For VACUUM and a checkpoint, no transaction may be open. */
function write(sql: string): Promise<unknown> {
  if (sql.startsWith('VACUUM')) return db.write.run(sql);
  return sql.startsWith('PRAGMA') ? db.write.all(sql) : db.write.exec(sql);
}
