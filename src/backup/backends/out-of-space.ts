import { SqlsyncError, systemErrorCode } from '../../errors.ts';
import type { Backend } from './backend.ts';

/** Errors of a full disk or an exhausted quota. */
const CODES: ReadonlySet<string | undefined> = new Set(['ENOSPC', 'EDQUOT']);

/** True if a backend refused something because the disk is full. */
export function isOutOfSpace(error: unknown): error is SqlsyncError {
  return error instanceof SqlsyncError && CODES.has(systemErrorCode(error.cause));
}

/** Runs `action`, and once more if the disk was full and the backend could free space. Throws what `action` throws. */
export async function withRoom<T>(backend: Backend, action: () => Promise<T>): Promise<T> {
  try {
    return await action();
  } catch (error) {
    if (!isOutOfSpace(error) || (await backend.makeRoom?.()) !== true) throw error;
    return action();
  }
}

/** As `withRoom`; returns false if there is no space. */
export async function isThereRoom(backend: Backend, action: () => Promise<unknown>): Promise<boolean> {
  try {
    await withRoom(backend, action);
    return true;
  } catch (error) {
    if (isOutOfSpace(error)) return false;
    throw error;
  }
}
