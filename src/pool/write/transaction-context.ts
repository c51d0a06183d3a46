import { AsyncLocalStorage } from 'node:async_hooks';

/** A transaction or a held connection, while its function runs. */
export interface Scope {
  /** The pool whose writes would wait for its end. */
  readonly owner: object;
  readonly isOpen: boolean;
}

/** A scope with the scopes around it, so that scopes of two databases can nest. */
interface Entry {
  readonly scope: Scope;
  readonly outer: Entry | undefined;
}

/**
 * The scope whose function called the running code: a write of the same pool from there would wait for itself. One
 * storage for all pools: code that runs after a use of an AsyncLocalStorage carries its value on, and each further
 * storage makes all uses slower (Node.js 24 copies all values at each).
 */
const context = new AsyncLocalStorage<Entry>();

/** Runs `fn` inside `scope`. */
export function runInside<Argument, T>(scope: Scope, fn: (argument: Argument) => T, argument: Argument): T {
  return context.run({ scope, outer: openEntry(context.getStore()) }, fn, argument);
}

/** True if the call comes from within an open transaction or connection of this pool. */
export function isInside(owner: object): boolean {
  for (let entry = context.getStore(); entry !== undefined; entry = entry.outer) {
    if (entry.scope.isOpen && entry.scope.owner === owner) return true;
  }
  return false;
}

/** Drops ended scopes: they would be carried on for ever. */
function openEntry(entry: Entry | undefined): Entry | undefined {
  let open = entry;
  while (open?.scope.isOpen === false) open = open.outer;
  return open;
}
