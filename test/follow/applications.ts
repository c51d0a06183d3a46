import assert from 'node:assert/strict';
import { randomStep } from '../../fixtures/history.ts';
import type { Random } from '../../fixtures/random.ts';
import { OtherProcess } from '../support/other-process.ts';
import type { OtherConnection } from '../support/other-process.ts';
import { stateOf } from './following.ts';
import { PoolsApplication } from './pools-application.ts';

/** What writes the origin of a history. After it has ended, the next call begins it anew. */
export interface Application {
  change(random: Random): Promise<void>;
  /** The state of the origin; undefined if it cannot be read now. */
  state(): Promise<string | undefined>;
  close(): Promise<void>;
  /** Kills it in the middle of a transaction. */
  kill(): Promise<void>;
}

/** A test, or whatever else says when it ends. */
interface Ending {
  after(end: () => unknown): void;
}

/** An application that uses SQLite alone, and does all that can be done with it. */
export class PlainApplication implements Application {
  readonly #t: Ending;
  readonly #origin: string;
  #process: OtherProcess;
  #connection: OtherConnection | undefined;

  constructor(t: Ending, origin: string) {
    this.#t = t;
    this.#origin = origin;
    this.#process = new OtherProcess(t);
  }

  async change(random: Random): Promise<void> {
    const app = await this.#open();
    try {
      if (random.chance(0.08))
        await app.call('rows', `PRAGMA journal_mode = ${random.pick(['wal', 'delete'])}`);
      else if (random.chance(0.05)) await app.call('exec', `PRAGMA cache_size = ${random.pick([2, 2000])}`);
      else await app.call('step', randomStep(random));
    } catch (error) {
      assert.match(String((error as { code?: string }).code), /^SQLITE_(?:BUSY|LOCKED)/, String(error));
    }
  }

  /** A connection that has been open for long may show old bytes of free pages in rollback mode. */
  async state(): Promise<string | undefined> {
    // Rolls back what a killed application left.
    await (await this.#open()).call('rows', 'SELECT count(*) FROM sqlite_schema');
    return stateOf(this.#process, this.#origin);
  }

  async close(): Promise<void> {
    const app = await this.#open();
    this.#connection = undefined;
    await app.call('close');
  }

  async kill(): Promise<void> {
    const app = await this.#open();
    await app.call('exec', 'PRAGMA cache_size = 2; BEGIN IMMEDIATE; CREATE TABLE lost (x)').catch(() => {});
    await this.#process.end();
    this.#connection = undefined;
    this.#process = new OtherProcess(this.#t);
  }

  async #open(): Promise<OtherConnection> {
    return (this.#connection ??= await this.#process.open(this.#origin, { timeoutMs: 20_000 }));
  }
}

/** An application that writes by the pools alone. */
export class PoolsUser implements Application {
  readonly #t: Ending;
  readonly #origin: string;
  /** Reads the origin: the process that has the pools must not. */
  readonly #reader: OtherProcess;
  #app: PoolsApplication | undefined;

  constructor(t: Ending, origin: string, reader: OtherProcess) {
    this.#t = t;
    this.#origin = origin;
    this.#reader = reader;
  }

  async change(random: Random): Promise<void> {
    await (await this.#open()).exec(randomSql(random));
  }

  async state(): Promise<string | undefined> {
    await this.#open();
    return stateOf(this.#reader, this.#origin);
  }

  async close(): Promise<void> {
    const app = await this.#open();
    this.#app = undefined;
    await app.close();
  }

  async kill(): Promise<void> {
    const app = await this.#open();
    this.#app = undefined;
    // It never ends.
    const endless = 'WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n';
    void app.exec(`CREATE TABLE lost (x); INSERT INTO lost ${endless}`).catch(() => {});
    await app.kill();
  }

  async #open(): Promise<PoolsApplication> {
    return (this.#app ??= await PoolsApplication.open(this.#t, this.#origin));
  }
}

function randomSql(random: Random): string {
  const rows = random.integer(1, 200);
  const some = `WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT ${rows})`;
  return random.pick([
    `${some} INSERT INTO item (label, amount, payload) SELECT hex(i), i, randomblob(${random.integer(1, 900)}) FROM n`,
    `INSERT INTO item (label, payload) VALUES ('long', randomblob(${random.integer(1, 60_000)}))`,
    `UPDATE item SET amount = amount + 1 WHERE id % ${rows} = 0`,
    `UPDATE item SET amount = random() WHERE id = ${rows}`,
    `DELETE FROM item WHERE id % ${rows + 1} = 1`,
    `DELETE FROM item WHERE id > ${5 * rows}`,
    `CREATE TABLE IF NOT EXISTS more (x); INSERT INTO more VALUES (randomblob(${rows}))`,
    'DROP TABLE IF EXISTS more',
    'CREATE INDEX IF NOT EXISTS more_index ON item (length(payload))',
    'DROP INDEX IF EXISTS more_index',
    'VACUUM',
    `PRAGMA wal_checkpoint(${random.pick(['PASSIVE', 'FULL', 'RESTART', 'TRUNCATE'])})`,
  ]);
}
