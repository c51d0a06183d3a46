import fc from 'fast-check';
import { HISTORY_KINDS } from '../../fixtures/history.ts';
import type { HistoryStep } from '../../fixtures/history.ts';

/** One step of a history; shrinks towards few rows and the plain kinds, which HISTORY_KINDS has first. */
export const historyStepArbitrary: fc.Arbitrary<HistoryStep> = fc.record({
  kind: fc.constantFrom(...HISTORY_KINDS),
  seed: fc.integer({ min: 0, max: 2 ** 32 - 1 }),
  rows: fc.integer({ min: 1, max: 100 }),
});

export function historyArbitrary(maxSteps: number): fc.Arbitrary<HistoryStep[]> {
  return fc.array(historyStepArbitrary, { minLength: 1, maxLength: maxSteps });
}
