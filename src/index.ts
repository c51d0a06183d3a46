/** The public API of sqlsync. */
export { SqlsyncError } from './errors.ts';
export type { ErrorCode } from './errors.ts';

export { openDatabase } from './pool/database.ts';
export { BulkInterruptedError } from './pool/bulk/bulk.ts';
export type {
  Activity,
  AggregateOptions,
  BackupResult,
  BulkOptions,
  ConnectionOptions,
  Database,
  DatabaseOptions,
  DatabaseStats,
  FunctionOptions,
  Inspection,
  LabelStats,
  Priority,
  QueryOptions,
  QueryResult,
  ReadConnection,
  ReadPool,
  ReadStats,
  RunResult,
  SqlFunction,
  SqlParams,
  SqlRow,
  SqlValue,
  TimeStats,
  WaitOptions,
  WriteActivity,
  WriteConnection,
  WriteOptions,
  WritePool,
  WriteTransaction,
} from './pool/types.ts';
export type {
  FailureEvent,
  ReadEvent,
  RetryEvent,
  TimeoutEvent,
  WalEvent,
  WriteEvent,
} from './pool/stats.ts';

export type { Facts, LockFacts, ProcessFacts } from './doctor/facts.ts';
export type { Finding, Severity } from './doctor/finding.ts';
export { follow, sync, verify } from './library/sync.ts';
export { backup, restore } from './library/backup.ts';
export { initStore, openStore, repairStore } from './backup/store.ts';
export { planForget } from './backup/prune/plan-forget.ts';
export type { ForgetGroup } from './backup/prune/plan-forget.ts';
export type { KeepCount, RetentionPolicy } from './backup/prune/retention.ts';
export type { CalendarSpan } from './backup/snapshots/calendar-time.ts';
export type { InitOptions, OpenOptions } from './backup/files/access.ts';
export type { PasswordSource } from './backup/keys/password.ts';
export type { StoreKey } from './backup/keys/store-keys.ts';
export type { LostSnapshot, RepairOptions, RepairSummary } from './backup/types.ts';
export type { BackupOptions, BackupSummary, RestoreOptions, RestoreSummary } from './backup/options.ts';
export type {
  CheckOptions,
  CheckProblem,
  CheckSummary,
  CopyOptions,
  CopySummary,
  ForgetSummary,
  PruneOptions,
  PruneSummary,
  SnapshotDiff,
  SnapshotStatistics,
  SnapshotListeners,
  Store,
  StoreCallOptions,
  StoreProgress,
  StoreSnapshot,
  StoreStats,
} from './backup/types.ts';
export type { CopyProgress } from './sync/agents/page-copy.ts';
export type { RemoteOptions } from './sync/link/start-agent.ts';
export type { FollowIntoStoreOptions } from './backup/follow/follow-store.ts';
export type { FollowFailure, FollowOptions, FollowStep, FollowSummary } from './sync/follow/follow.ts';
export type { SyncOptions, SyncSummary } from './sync/runs/sync.ts';
export type { DifferingObject, VerifiedDatabase, VerifyOptions, VerifySummary } from './sync/runs/verify.ts';
export type { CompressionMode, HashAlgorithm, Outcome, Phase, Reader } from '../protocol/messages.ts';
