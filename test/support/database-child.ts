/**
 * The other end of `OtherProcess` (other-process.ts): holds connections of another build of SQLite than
 * sqlsync's and serves the requests of the test on them, one after another.
 */
import { createHash } from 'node:crypto';
import Database from 'better-sqlite3';
import type { HistoryStep } from '../../fixtures/history.ts';
import { applyStep } from '../../fixtures/history.ts';
import { maskedPages } from './compare.ts';

export interface Operations {
  open(options: { path: string; readonly?: boolean; timeoutMs?: number }): void;
  exec(sql: string): void;
  /** All rows, each as an array of its columns. */
  rows(sql: string): unknown[][];
  /** Prepares a statement that stays prepared under this name. */
  prepare(name: string, sql: string): void;
  /** The rows of a statement that was prepared before. */
  prepared(name: string): unknown[][];
  step(step: HistoryStep): void;
  inTransaction(): boolean;
  /** SHA-256 of all pages as this connection sees them, without the header bytes that belong to each file. */
  imageHash(): string;
  close(): void;
}

export interface Request {
  readonly id: number;
  readonly connection: number;
  readonly operation: keyof Operations;
  readonly args: unknown[];
}

export type Reply =
  | { readonly id: number; readonly value: unknown }
  | { readonly id: number; readonly error: { code: string; message: string } };

class Session implements Operations {
  #database: Database.Database | undefined;
  readonly #statements = new Map<string, Database.Statement>();

  get #open(): Database.Database {
    if (this.#database === undefined) throw new Error('the connection is not open');
    return this.#database;
  }

  open(options: { path: string; readonly?: boolean; timeoutMs?: number }): void {
    const { path, readonly = false, timeoutMs = 0 } = options;
    this.#database = new Database(path, { readonly, timeout: timeoutMs });
  }

  exec(sql: string): void {
    this.#open.exec(sql);
  }

  rows(sql: string): unknown[][] {
    return this.#open.prepare(sql).raw().all() as unknown[][];
  }

  prepare(name: string, sql: string): void {
    this.#statements.set(name, this.#open.prepare(sql).raw());
  }

  prepared(name: string): unknown[][] {
    return this.#statements.get(name)?.all() as unknown[][];
  }

  step(step: HistoryStep): void {
    applyStep(this.#open, step);
  }

  inTransaction(): boolean {
    return this.#open.inTransaction;
  }

  imageHash(): string {
    const hash = createHash('sha256');
    for (const page of maskedPages(this.#open.serialize())) hash.update(page);
    return hash.digest('hex');
  }

  close(): void {
    this.#database?.close();
  }
}

const sessions = new Map<number, Session>();

process.on('message', ({ id, connection, operation, args }: Request) => {
  let session = sessions.get(connection);
  if (session === undefined) sessions.set(connection, (session = new Session()));
  let reply: Reply;
  try {
    reply = { id, value: (session[operation] as (...args: unknown[]) => unknown).apply(session, args) };
  } catch (error) {
    const { code = '', message } = error as Error & { code?: string };
    reply = { id, error: { code, message } };
  }
  process.send?.(reply);
});
process.on('disconnect', () => process.exit());
