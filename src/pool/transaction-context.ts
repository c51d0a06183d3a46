import { AsyncLocalStorage } from 'node:async_hooks';
import type { MaybePromise, WriteTransaction } from './types.ts';
import { Transaction } from './write-transaction.ts';
import type { Writer } from './writer.ts';

/**
 * Which transaction's function the code that runs now was called from: a write of the same pool from there would wait
 * for itself. One for all pools: what runs after a use of an AsyncLocalStorage carries it on, and every further one
 * makes all uses dearer (Node.js 24 copies the values of all at each).
 */
const context = new AsyncLocalStorage<Transaction>();

/** Begins with the transaction that this call comes from, if any, so that transactions of two databases can nest. */
export function newTransaction(writer: Writer, signal: AbortSignal | undefined): Transaction {
  const outer = context.getStore();
  return new Transaction(writer, { signal, outer: outer?.isOpen === true ? outer : undefined });
}

export function runInside<T>(
  tx: Transaction,
  fn: (tx: WriteTransaction) => MaybePromise<T>,
): MaybePromise<T> {
  return context.run(tx, fn, tx);
}

/** True where the call comes from within an open transaction of this writer. */
export function isInside(writer: Writer): boolean {
  for (let tx = context.getStore(); tx !== undefined; tx = tx.outer) {
    if (tx.isOpen && tx.writer === writer) return true;
  }
  return false;
}
