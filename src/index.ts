/** The public API of sqlsync. */
export { SqlsyncError } from './errors.ts';
export type { ErrorCode } from './errors.ts';
