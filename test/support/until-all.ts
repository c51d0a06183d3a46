import assert from 'node:assert/strict';

/** Chance keeps an event from this many times as many cases at most one time in very many. */
const MOST_TIMES = 20;
const FEW_CASES = 10;

/**
 * The numbers of random cases to try, from 0: `cases` of them, then more until each event of `names` was
 * counted in `counts`, so that chance alone fails no test. Throws if one does not occur in very many cases.
 */
export function* untilAll<Name extends string>(
  cases: number,
  counts: Readonly<Partial<Record<Name, number>>>,
  names: readonly Name[] = Object.keys(counts) as Name[],
): Generator<number, void> {
  const most = MOST_TIMES * Math.max(cases, FEW_CASES);
  for (let number = 0; ; number++) {
    const missing = names.filter((name) => counts[name] === 0);
    if (number >= cases && missing.length === 0) return;
    assert.ok(number < most, `no ${missing.join(', ')} in ${number} cases`);
    yield number;
  }
}
