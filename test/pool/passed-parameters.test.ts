import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { TestContext } from 'node:test';
import { Kysely, sql } from 'kysely';
import { sql as drizzleSql } from 'drizzle-orm';
import { blob, sqliteTable } from 'drizzle-orm/sqlite-core';
import { drizzle } from '../../src/drizzle.ts';
import { SqlsyncDialect } from '../../src/kysely.ts';
import type { Database, ReadConnection, SqlParams, SqlValue, WriteOptions } from '../../src/pool/types.ts';
import { OtherProcess } from '../support/other-process.ts';
import { hold, openTemporary, valuesOf } from './open.ts';

const INSERT = 'INSERT INTO t (x) VALUES (?)';
const INSERT_NAMED = 'INSERT INTO t (x) VALUES (:x)';

/** Parameters with the bytes 1, 2, 3, and the caller's change of them after its call. */
const PASSED: Record<string, () => { params: SqlParams; reuse: () => void }> = {
  'a Uint8Array': () => {
    const bytes = Uint8Array.of(1, 2, 3);
    return { params: [bytes], reuse: () => bytes.fill(9) };
  },
  'a Buffer out of the pool of buffers': () => {
    const bytes = Buffer.from([1, 2, 3]);
    return { params: [bytes], reuse: () => bytes.fill(9) };
  },
  'a part of a buffer': () => {
    const whole = Buffer.from([9, 1, 2, 3, 9]);
    return { params: [whole.subarray(1, 4)], reuse: () => whole.fill(9) };
  },
  'a typed array of wider numbers': () => {
    const { buffer } = Uint8Array.of(9, 9, 9, 9, 1, 2, 3, 0);
    const numbers = new Uint32Array(buffer, 4, 1);
    return { params: [numbers] as unknown as SqlParams, reuse: () => numbers.fill(9) };
  },
  'a part of shared memory': () => {
    const shared = new Uint8Array(new SharedArrayBuffer(4));
    shared.set([1, 2, 3]);
    return { params: [shared.subarray(0, 3)], reuse: () => shared.fill(9) };
  },
  'a buffer that is given away': () => {
    const bytes = Uint8Array.of(1, 2, 3);
    return { params: [bytes], reuse: () => void structuredClone(bytes, { transfer: [bytes.buffer] }) };
  },
  'an array': () => {
    const params: SqlValue[] = [Uint8Array.of(1, 2, 3)];
    return { params, reuse: () => params.splice(0, 1, 'later', 'more') };
  },
  'an object': () => {
    const params: Record<string, SqlValue> = { x: Uint8Array.of(1, 2, 3) };
    return { params, reuse: () => Object.assign(params, { x: 'later', y: 1 }) };
  },
  'a buffer in an object': () => {
    const bytes = Uint8Array.of(1, 2, 3);
    return { params: { x: bytes }, reuse: () => bytes.fill(9) };
  },
};

function insertFor(params: SqlParams): string {
  return Array.isArray(params) ? INSERT : INSERT_NAMED;
}

/** Each way to write one row that may have to wait. */
const WRITES: Record<string, (db: Database, params: SqlParams) => Promise<unknown>> = {
  run: (db, params) => db.write.run(insertFor(params), params),
  all: (db, params) => db.write.all(`${insertFor(params)} RETURNING id`, params),
  get: (db, params) => db.write.get(`${insertFor(params)} RETURNING id`, params),
  values: (db, params) => db.write.values(insertFor(params), params),
  execute: (db, params) => db.write.execute(insertFor(params), params),
  'run with a key': (db, params) => db.write.run(insertFor(params), params, { coalesce: 'key' }),
};

/** Each way to read a passed value that may have to wait. */
const READS: Record<string, (db: ReadConnection, sql: string, params: SqlParams) => Promise<unknown>> = {
  all: async (db, query, params) => (await db.all<{ x: unknown }>(query, params))[0]?.x,
  get: async (db, query, params) => (await db.get<{ x: unknown }>(query, params))?.x,
  values: async (db, query, params) => (await db.values(query, params))[0]?.[0],
  iterate: (db, query, params) => firstOf(db.iterate<{ x: unknown }>(query, params)),
};

async function firstOf(rows: AsyncIterable<{ x: unknown }>): Promise<unknown> {
  let first: unknown;
  for await (const { x } of rows) first ??= x;
  return first;
}

/** The fourth byte of the Uint32Array is stored too. */
function storedOf(what: string): Buffer {
  return Buffer.from(what.includes('wider') ? [1, 2, 3, 0] : [1, 2, 3]);
}

const STORED = storedOf('');

for (const [what, passed] of Object.entries(PASSED)) {
  describe(`a write stores the parameters of its call, though the caller reuses ${what}`, () => {
    const stored = storedOf(what);
    for (const [way, write] of Object.entries(WRITES)) {
      test(`${way} that waits for a transaction stores ${what} as it was at the call`, async (t) => {
        const db = await openTemporary(t);
        const { release, done } = hold(db);
        const { params, reuse } = passed();
        const written = write(db, params);
        reuse();
        release();
        await Promise.all([written, done]);
        assert.deepEqual(await valuesOf(db), [stored]);
      });
    }

    test(`run that another program keeps waiting stores ${what} as it was at the call`, async (t) => {
      const db = await openTemporary(t);
      const other = await new OtherProcess(t).open(db.path);
      await other.exec('BEGIN IMMEDIATE');
      const { params, reuse } = passed();
      const written = db.write.run(insertFor(params), params);
      reuse();
      await other.exec('COMMIT');
      await written;
      assert.deepEqual(await valuesOf(db), [stored]);
    });

    for (const [way, read] of Object.entries(READS)) {
      const queryFor = (params: SqlParams): string =>
        Array.isArray(params) ? 'SELECT ? AS x' : 'SELECT :x AS x';
      for (const threads of [0, 1]) {
        test(`${way} of a reader that waits reads ${what} as it was at the call${threads === 0 ? '' : ', in a thread'}`, async (t) => {
          const db = await openTemporary(t, { readers: 1, threads });
          const { promise, resolve } = Promise.withResolvers<void>();
          const reading = db.read.snapshot(() => promise);
          const { params, reuse } = passed();
          const found = read(db.read, queryFor(params), params);
          reuse();
          resolve();
          assert.deepEqual(await found, stored);
          await reading;
        });
      }

      test(`${way} of a snapshot and of a transaction reads ${what} as it was at the call`, async (t) => {
        const db = await openTemporary(t);
        const readNow = (connection: ReadConnection): Promise<unknown> => {
          const { params, reuse } = passed();
          const found = read(connection, queryFor(params), params);
          reuse();
          return found;
        };
        assert.deepEqual(await db.read.snapshot(readNow), stored);
        assert.deepEqual(await db.write.transaction(readNow), stored);
      });
    }
  });
}

describe('an iteration', () => {
  test('an iteration reads with the parameters and options of its call, whenever its loop begins', async (t) => {
    const db = await openTemporary(t);
    const bytes = Uint8Array.of(1, 2, 3);
    const gone = AbortSignal.abort();
    const options: { signal?: AbortSignal } = {};
    const query = 'SELECT ? AS x';
    const begun = db.read.iterate<{ x: unknown }>(query, [bytes], options);
    Object.assign(options, { signal: gone });
    await db.write.transaction(async (tx) => {
      const inside = tx.iterate<{ x: unknown }>(query, [bytes]);
      const beside = await db.read.snapshot((r) => {
        const rows = r.iterate<{ x: unknown }>(query, [bytes]);
        bytes.fill(9);
        return firstOf(rows);
      });
      assert.deepEqual([await firstOf(inside), beside], [STORED, STORED]);
    });
    assert.deepEqual(await firstOf(begun), STORED);
  });
});

describe('options', () => {
  test('a write and a read that wait use the options of their call', async (t) => {
    const db = await openTemporary(t, { readers: 1 });
    const { release, done } = hold(db);
    const { promise, resolve } = Promise.withResolvers<void>();
    const reading = db.read.snapshot(() => promise);
    const options = { label: 'mine', deadlineMs: 60_000 };
    const write: WriteOptions = { ...options, priority: 'interactive' };
    const waiting = [
      db.write.run(INSERT, [1], write),
      db.read.all('SELECT 1', [], options),
      db.read.snapshot((r) => r.all('SELECT 1'), options),
    ];
    for (const later of [options, write]) {
      Object.assign(later, {
        label: 'later',
        deadlineMs: 0,
        priority: 'background',
        signal: AbortSignal.abort(),
      });
    }
    const { read, write: writing } = db.stats();
    assert.deepEqual(
      [...read.waiting, ...writing.waiting].map(({ label }) => label),
      ['mine', 'mine', 'mine'],
    );
    assert.equal(writing.waiting[0]?.priority, 'interactive');
    release();
    resolve();
    await Promise.all([...waiting, reading, done]);
  });
});

describe('a bulk write', () => {
  const insert = (
    tx: { run(text: string, params: SqlParams): Promise<unknown> },
    item: SqlValue,
  ): Promise<unknown> => tx.run(INSERT, [item]);

  for (const [what, make] of Object.entries({
    'an array': () => {
      const items = [1, 2, 3];
      return { items, reuse: () => items.splice(0) };
    },
    'a Set': () => {
      const items = new Set([1, 2, 3]);
      return { items, reuse: () => items.clear() };
    },
    'a Uint8Array': () => {
      const items = Uint8Array.of(1, 2, 3);
      return { items, reuse: () => items.fill(9) };
    },
    'the entries of a Map': () => {
      const map = new Map([[1, 1]]);
      map.set(2, 2).set(3, 3);
      return { items: [...map.values()], reuse: () => map.clear() };
    },
  })) {
    test(`a bulk write has the items that ${what} had at the call`, async (t) => {
      const db = await openTemporary(t);
      const { release, done } = hold(db);
      const { items, reuse } = make();
      const written = db.write.bulk(items as Iterable<number>, insert);
      reuse();
      release();
      await Promise.all([written, done]);
      assert.deepEqual(await valuesOf(db), [1, 2, 3]);
    });
  }

  // In a transaction with a deferred BEGIN, a write after a read fails once someone else has written: SQLite
  // refuses it in the middle.
  async function interrupted<Item>(
    t: TestContext,
    items: Iterable<Item>,
    valueOf: (item: Item) => SqlValue,
  ): Promise<{ stored: unknown[]; given: Item[] }> {
    const db = await openTemporary(t, { begin: 'BEGIN' });
    const other = await new OtherProcess(t).open(db.path);
    const given: Item[] = [];
    let seen = 0;
    await db.write.bulk(items, async (tx, item) => {
      given.push(item);
      seen += 1;
      await tx.get('SELECT count(*) FROM t');
      if (seen === 3) await other.exec('CREATE TABLE IF NOT EXISTS other (x)');
      if (seen >= 3) await tx.run(INSERT, [valueOf(item)]);
    });
    return { stored: await valuesOf(db), given };
  }

  test('a bulk write that runs again writes the content of a reused buffer item by item', async (t) => {
    const buffer = Buffer.alloc(1);
    function* filled(): Generator<Uint8Array> {
      for (const byte of [1, 2, 3]) {
        buffer.fill(byte);
        yield buffer;
      }
    }
    const { stored } = await interrupted(t, filled(), (bytes) => bytes);
    assert.deepEqual(stored, [Buffer.of(1), Buffer.of(2), Buffer.of(3)]);
  });

  test('a bulk write that runs again writes the content of a reused object or array item by item', async (t) => {
    function* reused(row: SqlValue[] | Record<string, SqlValue>): Generator<typeof row> {
      for (const value of [1, 2, 3]) {
        Object.assign(row, { 0: value });
        yield row;
      }
    }
    for (const row of [[0], {}]) {
      const { stored } = await interrupted(t, reused(row), (item) => (item as SqlValue[])[0] as SqlValue);
      assert.deepEqual(stored, [1, 2, 3]);
    }
  });

  test('a bulk write that runs again gets the same unchanged objects, except for added properties', async (t) => {
    const rows: { x: number; id?: number }[] = [{ x: 1 }, { x: 2 }, { x: 3 }];
    const { stored, given } = await interrupted(t, rows, (row) => {
      row.id = row.x * 10;
      return row.x;
    });
    assert.deepEqual(stored, [1, 2, 3]);
    for (const [index, row] of rows.entries()) {
      assert.equal(row.id, row.x * 10);
      assert.ok(given.lastIndexOf(row) > index, 'the object itself came again');
    }
  });
});

describe('query builders', () => {
  test('queries of Kysely write the bytes of the call, whether they have to wait or not', async (t) => {
    const db = await openTemporary(t);
    const kysely = new Kysely<{ t: { id: number; x: Uint8Array } }>({
      dialect: new SqlsyncDialect({ database: db }),
    });
    const buffer = new Uint8Array(1);
    const filled = (byte: number): Uint8Array => buffer.fill(byte);
    const calm = [
      kysely
        .insertInto('t')
        .values({ id: 1, x: filled(1) })
        .execute(),
      sql`INSERT INTO t VALUES (2, ${filled(2)})`.execute(kysely),
    ];
    filled(9);
    await Promise.all(calm);
    const { release, done } = hold(db);
    const waiting = kysely
      .insertInto('t')
      .values({ id: 3, x: filled(3) })
      .execute();
    const read = kysely.selectNoFrom(sql<Buffer>`${filled(4)}`.as('x')).executeTakeFirstOrThrow();
    filled(9);
    release();
    await Promise.all([waiting, done]);
    assert.deepEqual(
      await valuesOf(db),
      [1, 2, 3].map((byte) => Buffer.of(byte)),
    );
    assert.deepEqual((await read).x, Buffer.of(4));
  });

  test('prepared queries of Drizzle write the bytes of the call', async (t) => {
    const db = await openTemporary(t);
    const table = sqliteTable('t', { x: blob() });
    const insert = drizzle(db)
      .insert(table)
      .values({ x: drizzleSql.placeholder('x') })
      .prepare();
    const { release, done } = hold(db);
    const [x, y] = [Buffer.of(1, 2, 3), Buffer.of(1, 2, 3)];
    const written = insert.run({ x });
    const orm = drizzle(db);
    const batch = orm.batch([orm.insert(table).values({ x: y })]);
    for (const later of [x, y]) later.fill(9);
    release();
    await Promise.all([written, batch, done]);
    assert.deepEqual(await valuesOf(db), [STORED, STORED]);
  });
});

test('a value that SQLite cannot take gives the same error whether the write waits or not', async (t) => {
  const db = await openTemporary(t);
  class Row {
    readonly x = 1;
  }
  for (const params of [
    [true],
    [{}],
    [undefined, 1],
    new Row(),
    new Date(),
    'text',
    Uint8Array.of(1),
    { y: 1 },
  ]) {
    const call = (): Promise<unknown> =>
      db.write.run(insertFor(params as SqlParams), params as SqlParams).then(
        () => 'written',
        (error: unknown) => error,
      );
    const now = await call();
    const { release, done } = hold(db);
    const later = call();
    release();
    await done;
    assert.deepEqual(await later, now);
    assert.ok(now instanceof Error);
  }
});
