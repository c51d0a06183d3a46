import { SqlsyncError } from '../../errors.ts';
import { BULK_OPTIONS, notAFunction, optionsFault, valueInWords } from '../call-options.ts';
import { isTurnOver, nextTurn } from '../event-loop.ts';
import { ItemSource } from './item-source.ts';
import { TakenItems } from './taken-items.ts';
import type { BulkOptions, MaybePromise, WriteOptions, WritePool, WriteTransaction } from '../types.ts';

const BUDGET_MS = 1000;

/** The share of the budget that the first transaction spends on items: how long its COMMIT takes is not known yet. */
const FIRST_SHARE = 0.25;

/** The next COMMIT may take longer than the one before, for example if it has to empty the WAL. */
const CAUTION = 0.8;

/** If the next item takes longer than this, the transaction ends: a slow source must not hold the writer. */
const STALL_MS = 10;

/** A bulk write that ended early: the first {@link committed} items are committed, and no other item left a trace. */
export class BulkInterruptedError extends SqlsyncError {
  readonly committed: number;

  constructor(committed: number, cause: unknown) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    super('BULK_INTERRUPTED', `the bulk write ended after ${committed} committed items: ${reason}`, {
      hint: 'Continue with the item after the committed ones (`error.committed`); `error.cause` is the reason.',
      cause,
    });
    this.committed = committed;
  }
}

/** `WritePool.bulk`, with transactions of `pool`. */
export async function bulkWrite<Item>(
  pool: Pick<WritePool, 'transaction'>,
  items: Iterable<Item> | AsyncIterable<Item>,
  fn: (tx: WriteTransaction, item: Item) => MaybePromise<unknown>,
  options: BulkOptions,
): Promise<{ committed: number }> {
  const fault = optionsFault('bulk()', options, BULK_OPTIONS);
  if (fault !== undefined) throw fault;
  if (typeof fn !== 'function') throw notAFunction('bulk()', fn);
  if (!isIterable(items))
    throw new SqlsyncError('USAGE', `bulk() got ${valueInWords(items)}; expected an iterable`);
  const { budgetMs = BUDGET_MS, onCommit, priority = 'background', ...waiting } = options;
  const writeOptions: WriteOptions = { priority, ...waiting };
  const source = new ItemSource(items);
  let committed = 0;
  let share = FIRST_SHARE;
  try {
    while (await source.hasMore()) {
      const taken = new TakenItems<Item>();
      let beganMs = 0;
      let filledMs = 0;
      await pool.transaction(async (tx) => {
        beganMs = performance.now();
        await fillTransaction(tx, source, taken, fn, beganMs + budgetMs * share);
        filledMs = performance.now();
      }, writeOptions);
      share = Math.max(FIRST_SHARE / 2, ((filledMs - beganMs) / (performance.now() - beganMs)) * CAUTION);
      committed += taken.count;
      onCommit?.(committed);
      // Lets the callers that were just served write again first.
      await nextTurn();
    }
    return { committed };
  } catch (error) {
    source.stop();
    throw new BulkInterruptedError(committed, error);
  }
}

function isIterable(items: unknown): boolean {
  if (items === null || items === undefined) return false;
  return Symbol.iterator in Object(items) || Symbol.asyncIterator in Object(items);
}

async function fillTransaction<Item>(
  tx: WriteTransaction,
  source: ItemSource<Item>,
  taken: TakenItems<Item>,
  fn: (tx: WriteTransaction, item: Item) => MaybePromise<unknown>,
  endMs: number,
): Promise<void> {
  for (const item of taken.again()) await fn(tx, item);
  for (;;) {
    const next = source.take() ?? (await source.takeWithin(STALL_MS));
    if (next === undefined) return;
    taken.add(next.item);
    const result = fn(tx, next.item);
    if (result !== undefined) await (result as PromiseLike<unknown>);
    const nowMs = performance.now();
    if (nowMs >= endMs || taken.isFull) return;
    if (isTurnOver(nowMs)) await nextTurn();
  }
}
