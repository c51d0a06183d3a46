import { SqlsyncError, systemErrorCode } from '../../errors.ts';
import { severalAtOnce } from '../backends/backend.ts';
import type { Backend } from '../backends/backend.ts';
import { comparePack } from '../objects/compare-pack.ts';
import { throwIfAborted } from '../store-error.ts';
import type { StoreCallOptions } from '../types.ts';

/**
 * Has packs read where they lie, if their place can. Returns the bytes that it read if each pack is that of its name:
 * then its objects are as they were written. Returns undefined if they have to be read here, which finds out what is
 * lost. Throws SqlsyncError STORE_UNAVAILABLE, INTERRUPTED.
 */
export async function bytesReadThere(
  backend: Backend,
  packs: readonly string[],
  { signal, onProgress }: StoreCallOptions,
): Promise<number | undefined> {
  if (backend.digest === undefined) return undefined;
  let [done, bytesRead, areRight] = [0, 0, true];
  await severalAtOnce(backend, packs, async (id) => {
    throwIfAborted(signal);
    if (!areRight) return;
    try {
      const { bytes, isChanged } = await comparePack(backend, id);
      bytesRead += bytes;
      areRight &&= !isChanged;
    } catch (error) {
      if (!(error instanceof SqlsyncError) || isOfPlace(backend, error)) throw error;
      areRight = false;
    }
    onProgress?.({ phase: 'read', done: ++done, total: packs.length });
  });
  return areRight ? bytesRead : undefined;
}

/** True if the place of a store elsewhere does not answer, or refuses: that says nothing about a file. */
export function isOfPlace({ parallel }: Backend, { code, cause }: SqlsyncError): boolean {
  return parallel !== undefined && code === 'STORE_UNAVAILABLE' && systemErrorCode(cause) !== 'EIO';
}
