import type { SqlsyncError } from '../../errors.ts';
import type { TargetConfig } from '../config/read-config.ts';
import type { TargetState } from '../state/state.ts';

/** One target of one database: what is copied again and again. */
export interface Job {
  readonly id: string;
  readonly origin: string;
  /** Its place is that of this database. */
  readonly target: TargetConfig;
  /** The pattern that its database matches. */
  readonly pattern: string | undefined;
  /** Why it cannot be copied. */
  readonly error: SqlsyncError | undefined;
}

/** What the service remembers of targets, by their ids. */
export type Memory = ReadonlyMap<string, TargetState>;
