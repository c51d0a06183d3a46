import { observeQueue } from '../../pool/admission/observe.ts';
import type { PoolFacts } from '../facts.ts';
import { readPool } from '../facts-shape.ts';

/** What the processes say that use the pools of sqlsync on the database. A text that is of another form is left out. */
export async function poolFacts(path: string): Promise<PoolFacts[]> {
  const texts = await observeQueue(path);
  return texts.flatMap((text) => {
    try {
      return [readPool(text)];
    } catch {
      return [];
    }
  });
}
