/**
 * Writers and readers on one database through its pools, that count what they did:
 *
 *     node many-writers.ts PATH FIRST COUNT     as a child process: from the first message until the second
 *
 * For the writer `w`, `counters` has the number of its writes, and `log` a row for each of its transactions.
 */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { setImmediate as nextTurn, setTimeout as delay } from 'node:timers/promises';
import type { Database, ReadConnection } from '../../src/index.ts';
import { openDatabase } from '../../src/index.ts';

export const SCHEMA = `
  CREATE TABLE counters (writer INTEGER PRIMARY KEY, n INTEGER NOT NULL);
  CREATE TABLE log (writer INTEGER NOT NULL, number INTEGER NOT NULL)`;

export interface WriterReport {
  readonly writer: number;
  /** Writes that were acknowledged, and how many of them were transactions. */
  writes: number;
  transactions: number;
}

export interface Report {
  readonly writers: WriterReport[];
  reads: number;
  readonly errors: string[];
}

const READERS = 2;
const READ_PACE_MS = 5;
const ADD = 'UPDATE counters SET n = n + 1 WHERE writer = ?';

/** They go on until {@link end}. */
export class ManyWriters {
  readonly report: Report = { writers: [], reads: 0, errors: [] };
  readonly #db: Database;
  readonly #done: Promise<unknown>;
  #isOver = false;

  constructor(db: Database, first: number, count: number) {
    this.#db = db;
    const loops = Array.from({ length: count }, (_, index) => this.#write(first + index));
    for (let reader = 0; reader < READERS; reader += 1) loops.push(this.#read());
    this.#done = Promise.all(loops);
  }

  get acknowledged(): number {
    return this.report.writers.reduce((sum, { writes }) => sum + writes, 0);
  }

  async end(): Promise<Report> {
    this.#isOver = true;
    await this.#done;
    return this.report;
  }

  async #write(writer: number): Promise<void> {
    const own: WriterReport = { writer, writes: 0, transactions: 0 };
    this.report.writers.push(own);
    await this.#untilOver(async () => {
      if (own.writes % 2 === 0) {
        await this.#db.write.run(ADD, [writer]);
      } else {
        await this.#db.write.transaction(async (tx) => {
          await tx.run('INSERT INTO log VALUES (?, ?)', [writer, own.transactions]);
          await nextTurn();
          await tx.run(ADD, [writer]);
        });
        own.transactions += 1;
      }
      own.writes += 1;
    });
  }

  async #read(): Promise<void> {
    await this.#untilOver(async () => {
      const [before, after] = await this.#db.read.snapshot(async (r) => {
        const total = await totalOf(r);
        await nextTurn();
        return [total, await totalOf(r)];
      });
      assert.equal(after, before, 'a snapshot changed');
      this.report.reads += 1;
      await delay(READ_PACE_MS);
    });
  }

  async #untilOver(act: () => Promise<void>): Promise<void> {
    try {
      while (!this.#isOver) await act();
    } catch (error) {
      this.report.errors.push(String(error));
    }
  }
}

async function totalOf(r: ReadConnection): Promise<number | undefined> {
  return (await r.get<{ n: number }>('SELECT total(n) AS n FROM counters'))?.n;
}

if (import.meta.main) {
  const [path = '', first, count] = process.argv.slice(2);
  process.once('disconnect', () => process.exit());
  const db = await openDatabase(path);
  process.send?.('ready');
  await once(process, 'message');
  const all = new ManyWriters(db, Number(first), Number(count));
  await once(process, 'message');
  const report = await all.end();
  await db.close();
  process.send?.(report, () => process.disconnect());
}
