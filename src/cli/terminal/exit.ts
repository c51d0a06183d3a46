import type { ErrorCode } from '../../errors.ts';

/** Exit statuses without an error. */
export const EXIT_OK = 0;
export const EXIT_DIFFERENT = 1;
/** An exact copy was made of a database that `--check` found damaged. */
export const EXIT_DAMAGED = 1;
/** `doctor` found something. */
export const EXIT_FINDINGS = 1;

/** The only place where errors become exit statuses; docs/cli.md, "Exit statuses", has the same table for people. */
const EXIT_STATUS: Readonly<Record<ErrorCode, number>> = {
  USAGE: 2,
  SAME_FILE: 2,
  BOTH_REMOTE: 2,
  CONFIG_INVALID: 2,
  ORIGIN_NOT_FOUND: 3,
  ORIGIN_NOT_A_DATABASE: 3,
  ORIGIN_UNREADABLE: 3,
  ORIGIN_PERMISSION: 3,
  ORIGIN_HOT_JOURNAL: 3,
  ORIGIN_CHECKSUM_VFS: 3,
  ORIGIN_REPLACED: 3,
  ORIGIN_CHANGED: 3,
  ORIGIN_TOO_LARGE: 3,
  ORIGIN_ALIAS: 3,
  REPLICA_NOT_A_DATABASE: 4,
  REPLICA_UNWRITABLE: 4,
  REPLICA_LEFTOVER: 4,
  REPLICA_REPLACED: 4,
  REPLICA_EXISTS: 4,
  REPLICA_CHECKSUM_VFS: 4,
  BUSY: 5,
  BUSY_TIMEOUT: 5,
  READ_TIMEOUT: 5,
  SWAPPED: 6,
  REPLICA_NOT_MARKED: 6,
  REPLICA_PAGE_SIZE: 6,
  REPLICA_LINK: 6,
  ORIGIN_SHRUNK: 6,
  ROOT_MISMATCH: 7,
  CHANGES_MISSED: 7,
  PROTOCOL: 8,
  PROTOCOL_VERSION: 8,
  NODE_UNSUPPORTED: 9,
  BINDING_MISSING: 9,
  BINDING_BROKEN: 9,
  BINDING_BUILD_FAILED: 9,
  CONNECT_FAILED: 10,
  HOST_KEY_UNKNOWN: 11,
  HOST_KEY_MISMATCH: 12,
  AUTH_FAILED: 13,
  REMOTE_EXE_NOT_FOUND: 14,
  CONNECTION_LOST: 15,
  TIMEOUT: 16,
  RESTRICTED: 17,
  STORE_NOT_FOUND: 18,
  STORE_EXISTS: 18,
  STORE_UNAVAILABLE: 18,
  STORE_VERSION: 18,
  STORE_PASSWORD: 27,
  STORE_CHANGED: 28,
  STORE_PRUNED: 18,
  SNAPSHOT_NOT_FOUND: 18,
  STORE_DAMAGED: 19,
  STORE_FILE_MISSING: 19,
  LOCKED: 20,
  BACKUP_PARTIAL: 21,
  SNAPSHOT_LIMIT: 22,
  DUMP_PARTIAL: 23,
  SNAPSHOT_INCOMPLETE: 24,
  TEMP_UNAVAILABLE: 25,
  SYSTEM_ERROR: 26,
  INTERNAL: 70,
  // Only applications see these, from the pools: the command uses no pool that could fail in this way.
  DATABASE_UNUSABLE: 70,
  READ_ONLY: 70,
  TRANSACTION_CONTROL: 70,
  TX_ENDED: 70,
  NESTED_WRITE: 70,
  BULK_INTERRUPTED: 70,
  WORKER_LOST: 70,
  CLOSED: 70,
  INTERRUPTED: 130,
  ABORTED: 130,
};

export function exitStatusOf(code: ErrorCode): number {
  return EXIT_STATUS[code];
}
