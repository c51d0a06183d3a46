/**
 * What the types of the pools allow and refuse. Nothing here runs: the compiler is the test, and `@ts-expect-error`
 * fails where the next line compiles.
 */
import type {
  Database,
  ReadConnection,
  ReadPool,
  SqlValue,
  WritePool,
  WriteTransaction,
} from '../../src/index.ts';

interface User {
  readonly id: number;
  readonly name: string;
}

declare const db: Database;
declare const reads: (r: ReadConnection) => Promise<User | undefined>;
declare const writes: (tx: WriteTransaction) => Promise<void>;

export async function aReaderCannotWrite(r: ReadConnection, pool: ReadPool): Promise<void> {
  // @ts-expect-error -- no method that writes
  await r.run('DELETE FROM user');
  // @ts-expect-error -- no method that writes
  await r.exec('DELETE FROM user');
  // @ts-expect-error -- no method that writes
  await r.execute('DELETE FROM user');
  // @ts-expect-error -- no method that writes
  await r.savepoint(() => undefined);
  // @ts-expect-error -- no method that writes
  await pool.run('DELETE FROM user');
  // @ts-expect-error -- no method that writes
  await pool.transaction(() => undefined);
  await pool.snapshot(async (snapshot) => {
    await reads(snapshot);
    // @ts-expect-error -- no method that writes
    await snapshot.run('DELETE FROM user');
  });
}

export async function aFunctionGetsWhatItDeclares(r: ReadConnection): Promise<void> {
  // @ts-expect-error -- a read connection is not enough
  await writes(r);
  // @ts-expect-error -- nor are the readers
  await writes(db.read);
  // @ts-expect-error -- nor is the pool: it has transactions, it is none
  await writes(db.write);
  // @ts-expect-error -- the writer is not for reading
  await reads(db.write);
  await reads(db.read);
  await db.write.transaction(async (tx) => {
    await writes(tx);
    await reads(tx);
    await tx.savepoint(writes);
    // @ts-expect-error -- a transaction has no pool
    await tx.transaction(() => undefined);
  });
}

export async function rowsAreTyped(): Promise<void> {
  const users: User[] = await db.read.all<User>('SELECT * FROM user');
  const user: User | undefined = await db.read.get<User>('SELECT * FROM user');
  // @ts-expect-error -- there may be none
  const sure: User = await db.read.get<User>('SELECT * FROM user');
  const untyped: Record<string, SqlValue>[] = await db.read.all('SELECT * FROM user');
  for await (const { name } of db.read.iterate<User>('SELECT * FROM user')) name.toUpperCase();
  const length: number = await db.write.transaction(async (tx) => (await tx.all('SELECT 1')).length);
  void [users, user, sure, untyped, length];
}

export async function parametersAreValuesOfSqlite(write: WritePool): Promise<void> {
  await write.run('INSERT INTO user VALUES (?, ?, ?, ?, ?)', [1, 2n, 'a', null, new Uint8Array(1)]);
  await write.run('INSERT INTO user VALUES (:id)', { id: 1 });
  // @ts-expect-error -- SQLite has no booleans
  await write.run('INSERT INTO user VALUES (?)', [true]);
  // @ts-expect-error -- nor dates
  await write.run('INSERT INTO user VALUES (?)', [new Date()]);
  // @ts-expect-error -- nor undefined
  await write.run('INSERT INTO user VALUES (?)', [undefined]);
  // @ts-expect-error -- parameters come as an array or an object
  await write.run('INSERT INTO user VALUES (?)', 1);
}

export async function optionsAreChecked(write: WritePool): Promise<void> {
  await write.run('DELETE FROM user', [], {
    priority: 'background',
    coalesce: 'k',
    label: 'a',
    deadlineMs: 5,
  });
  // @ts-expect-error -- no such priority
  await write.run('DELETE FROM user', [], { priority: 'urgent' });
  // @ts-expect-error -- a key is a string
  await write.transaction(() => undefined, { coalesce: true });
  await write.bulk([1, 2], async (tx, n) => void (await tx.run('SELECT ?', [n])), { budgetMs: 5 });
  // @ts-expect-error -- the item has the type of the items
  await write.bulk(['a'], (tx, n: number) => void tx.run('SELECT ?', [n]));
}
