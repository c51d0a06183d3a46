/**
 * Queries run at once and settle their promise at once, so a loop of awaited queries would never let the event loop
 * turn: no timer and no socket would run until its end. So each query asks here before it settles: once this turn of
 * the loop has lasted too long, its promise settles in the next one.
 *
 *     turn of the loop   |q q q q q q … 5 ms … q|            |q q q …
 *                                               └ setImmediate ┘
 */

/** How long queries may follow each other within one turn of the event loop. */
export const TURN_MS = 5;

let turnBeganMs = 0;
let isOver = false;

/** True once this turn of the loop should end. `nowMs` is `performance.now()`, which callers already have. */
export function isTurnOver(nowMs: number): boolean {
  if (isOver) return true;
  if (turnBeganMs === 0) {
    turnBeganMs = nowMs;
    setImmediate(beginTurn);
    return false;
  }
  isOver = nowMs - turnBeganMs > TURN_MS;
  return isOver;
}

/** Resolves in the next turn of the event loop. */
export function nextTurn<T>(value?: T): Promise<T> {
  return new Promise((resolve) => setImmediate(resolve, value as T));
}

/**
 * How many calls of {@link settle} without a time pass between two looks at the clock, which cost more than the call.
 */
const CALLS_A_LOOK = 8;
let calls = 0;

/** Resolves with `value`, at once or in the next turn of the event loop. */
export function settle<T>(value: T, nowMs?: number): Promise<T> {
  if (nowMs === undefined && !isOver) {
    calls = (calls + 1) % CALLS_A_LOOK;
    if (calls !== 0 || !isTurnOver(performance.now())) return Promise.resolve(value);
    return nextTurn(value);
  }
  return isOver || isTurnOver(nowMs as number) ? nextTurn(value) : Promise.resolve(value);
}

function beginTurn(): void {
  turnBeganMs = 0;
  isOver = false;
}
