import { SqlsyncError, systemErrorCode } from '../../errors.ts';
import type { Backend } from './backend.ts';

/** No space is left, or no more is granted. */
const CODES: ReadonlySet<string | undefined> = new Set(['ENOSPC', 'EDQUOT']);

/** Whether a backend refused something since there is no space left for it. */
export function isOutOfSpace(error: unknown): error is SqlsyncError {
  return error instanceof SqlsyncError && CODES.has(systemErrorCode(error.cause));
}

/** Does what takes space, once more where the backend can make room for it. Throws what `action` throws. */
export async function withRoom<T>(backend: Backend, action: () => Promise<T>): Promise<T> {
  try {
    return await action();
  } catch (error) {
    if (!isOutOfSpace(error) || (await backend.makeRoom?.()) !== true) throw error;
    return action();
  }
}

/** The same; false if there is no space. */
export async function isThereRoom(backend: Backend, action: () => Promise<unknown>): Promise<boolean> {
  try {
    await withRoom(backend, action);
    return true;
  } catch (error) {
    if (isOutOfSpace(error)) return false;
    throw error;
  }
}
