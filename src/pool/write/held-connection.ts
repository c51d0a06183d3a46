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
  WritePool,
  WriteTransaction,
} from '../types.ts';
import type { Writer } from './writer.ts';

/** The write pool that serves one held connection: no other work comes between. */
export interface InnerPool extends Pick<
  WritePool,
  'run' | 'all' | 'get' | 'values' | 'execute' | 'exec' | 'transaction'
> {
  /** Runs `act` when it is this call's turn. */
  withWriter<T>(act: (writer: Writer) => T, options: WriteOptions): Promise<T>;
}

/** The one connection of `write.connection(fn)`, until {@link end}. */
export class HeldConnection implements WriteConnection {
  /** The pool whose writes would wait for this connection's end. */
  readonly owner: object;
  readonly #pool: InnerPool;
  readonly #options: WriteOptions;
  #isOpen = true;

  /** @param options Of the call that holds it: its label, priority and signal also hold for its statements. */
  constructor(owner: object, pool: InnerPool, options: WriteOptions) {
    const { label, priority, signal } = options;
    this.owner = owner;
    this.#pool = pool;
    this.#options = { label, priority, signal };
  }

  get isOpen(): boolean {
    return this.#isOpen;
  }

  end(): void {
    this.#isOpen = false;
  }

  async run(sql: string, params?: SqlParams, options?: WaitOptions): Promise<RunResult> {
    return this.#pool.run(sql, params, this.#checked(options));
  }

  async all<Row = SqlRow>(sql: string, params?: SqlParams, options?: WaitOptions): Promise<Row[]> {
    return this.#pool.all<Row>(sql, params, this.#checked(options));
  }

  async get<Row = SqlRow>(sql: string, params?: SqlParams, options?: WaitOptions): Promise<Row | undefined> {
    return this.#pool.get<Row>(sql, params, this.#checked(options));
  }

  async values(sql: string, params?: SqlParams, options?: WaitOptions): Promise<SqlValue[][]> {
    return this.#pool.values(sql, params, this.#checked(options));
  }

  async execute<Row = SqlRow>(
    sql: string,
    params?: SqlParams,
    options?: WaitOptions,
  ): Promise<QueryResult<Row>> {
    return this.#pool.execute<Row>(sql, params, this.#checked(options));
  }

  async exec(sql: string, options?: WaitOptions): Promise<void> {
    return this.#pool.exec(sql, this.#checked(options));
  }

  async transaction<T>(fn: (tx: WriteTransaction) => MaybePromise<T>, options?: WaitOptions): Promise<T> {
    const checked = this.#checked(options);
    if (typeof fn !== 'function') throw notAFunction('connection.transaction()', fn);
    return this.#pool.transaction(fn, checked);
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
    yield* await this.#pool.withWriter(begin, checked);
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
