import { CONNECTION_CALL_OPTIONS, copyOptions, notAFunction, optionsFault } from '../call-options.ts';
import { copyParams } from '../sql/copied-params.ts';
import { SqlsyncError } from '../../errors.ts';
import { abortedError } from '../pool-errors.ts';
import { RowIteration } from './row-iteration.ts';
import type {
  MaybePromise,
  QueryResult,
  RunResult,
  SqlParams,
  SqlRow,
  SqlValue,
  WaitOptions,
  WriteConnection,
  WriteOptions,
  WriteTransaction,
} from '../types.ts';
import type { Writer } from './writer.ts';

/** The part of a write pool that serves one held connection: no other work comes between. */
export interface ConnectionServer {
  run(sql: string, params: SqlParams | undefined, options: WriteOptions): Promise<RunResult>;
  all<Row>(sql: string, params: SqlParams | undefined, options: WriteOptions): Promise<Row[]>;
  get<Row>(sql: string, params: SqlParams | undefined, options: WriteOptions): Promise<Row | undefined>;
  values(sql: string, params: SqlParams | undefined, options: WriteOptions): Promise<SqlValue[][]>;
  execute<Row>(sql: string, params: SqlParams | undefined, options: WriteOptions): Promise<QueryResult<Row>>;
  exec(sql: string, options: WriteOptions): Promise<void>;
  transaction<T>(fn: (tx: WriteTransaction) => MaybePromise<T>, options: WriteOptions): Promise<T>;
  /** Runs `act` when it is this call's turn. */
  withWriter<T>(act: (writer: Writer) => T, options: WriteOptions): Promise<T>;
}

/** The one connection of `write.connection(fn)`, until {@link end}. */
export class HeldConnection implements WriteConnection {
  /** The pool whose writes would wait for this connection's end. */
  readonly owner: object;
  readonly #server: ConnectionServer;
  readonly #options: WriteOptions;
  #isOpen = true;

  /** @param options Of the call that holds it: its label, priority and signal also hold for its statements. */
  constructor(owner: object, server: ConnectionServer, options: WriteOptions) {
    const { label, priority, signal } = options;
    this.owner = owner;
    this.#server = server;
    this.#options = { label, priority, signal };
  }

  get isOpen(): boolean {
    return this.#isOpen;
  }

  end(): void {
    this.#isOpen = false;
  }

  async run(sql: string, params?: SqlParams, options?: WaitOptions): Promise<RunResult> {
    return this.#server.run(sql, params, this.#checked(options));
  }

  async all<Row = SqlRow>(sql: string, params?: SqlParams, options?: WaitOptions): Promise<Row[]> {
    return this.#server.all<Row>(sql, params, this.#checked(options));
  }

  async get<Row = SqlRow>(sql: string, params?: SqlParams, options?: WaitOptions): Promise<Row | undefined> {
    return this.#server.get<Row>(sql, params, this.#checked(options));
  }

  async values(sql: string, params?: SqlParams, options?: WaitOptions): Promise<SqlValue[][]> {
    return this.#server.values(sql, params, this.#checked(options));
  }

  async execute<Row = SqlRow>(
    sql: string,
    params?: SqlParams,
    options?: WaitOptions,
  ): Promise<QueryResult<Row>> {
    return this.#server.execute<Row>(sql, params, this.#checked(options));
  }

  async exec(sql: string, options?: WaitOptions): Promise<void> {
    return this.#server.exec(sql, this.#checked(options));
  }

  async transaction<T>(fn: (tx: WriteTransaction) => MaybePromise<T>, options?: WaitOptions): Promise<T> {
    const checked = this.#checked(options);
    if (typeof fn !== 'function') throw notAFunction('connection.transaction()', fn);
    return this.#server.transaction(fn, checked);
  }

  iterate<Row = SqlRow>(
    sql: string,
    params?: SqlParams,
    options?: WaitOptions,
  ): AsyncGenerator<Row, void, undefined> {
    return this.#iterate(sql, copyParams(params), options === undefined ? undefined : copyOptions(options));
  }

  async *#iterate<Row>(
    sql: string,
    params: SqlParams | undefined,
    options: WaitOptions | undefined,
  ): AsyncGenerator<Row, void, undefined> {
    const checked = this.#checked(options);
    const check = (): void => void this.#checked(options);
    const begin = (writer: Writer): RowIteration<Row> => new RowIteration(writer, sql, params, check);
    yield* await this.#server.withWriter(begin, checked);
  }

  /** The options of a statement. Throws if it may not run. */
  #checked(options: WaitOptions | undefined): WriteOptions {
    if (!this.#isOpen) {
      throw new SqlsyncError('TX_ENDED', 'a statement of a connection that was given back', {
        hint: 'Await everything that uses the connection within the function that received it.',
      });
    }
    const { signal } = this.#options;
    if (signal?.aborted === true) throw abortedError(signal);
    if (options === undefined) return this.#options;
    const fault = optionsFault('a statement', options, CONNECTION_CALL_OPTIONS);
    if (fault !== undefined) throw fault;
    return {
      ...this.#options,
      ...(options.label === undefined ? {} : { label: options.label }),
      ...(options.signal === undefined ? {} : { signal: options.signal }),
      deadlineMs: options.deadlineMs,
    };
  }
}
