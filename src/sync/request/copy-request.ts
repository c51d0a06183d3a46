import {
  COMPRESSION_MODES,
  DEFAULT_HASH,
  HASH_ALGORITHMS,
  MAX_SHRINK_PERCENT,
  nameOf,
  NO_SHRINK_LIMIT,
  READERS,
} from '../../../protocol/messages.ts';
import type { CompressionMode, HashAlgorithm, MessageOf, Reader } from '../../../protocol/messages.ts';
import { SqlsyncError } from '../../errors.ts';

/**
 * Everything that a copy can be asked to do, with all defaults filled in. This type and the table below are its only
 * declaration: the fields of `replicate`, the options that the library accepts and their types derive from them. A new
 * entry needs a field of the same name in protocol/messages.ts, an option in src/cli/options/options.ts, and the code
 * that obeys it.
 */
export interface CopyRequest {
  /** How to compare pages: 'nh-siphash' (default), 'sha256', or 'xxh64' if no adversary writes the origin. */
  readonly hash: HashAlgorithm;
  /** What the origin may do to the pages that it sends. */
  readonly compression: CompressionMode;
  /** True to compare only. */
  readonly dryRun: boolean;
  /** True if the replica may be a database that sqlsync did not make, or the origin may be a copy of it (a restore). */
  readonly overwrite: boolean;
  /** True to replace a replica of another page size as a whole. */
  readonly replace: boolean;
  /**
   * True to follow a symbolic link in the place of the replica: the file that it leads to becomes the copy. A replica
   * with other names (hard links) changes under all of them.
   */
  readonly followLinks: boolean;
  /**
   * True to let SQLite check the replica after the copy (`PRAGMA integrity_check`): see `findings`. Not with `dryRun`.
   */
  readonly check: boolean;
  /**
   * True to compare all pages even if both databases are as the last comparison of all pages left them. That finds
   * damage that a disk did without a write. `check` and `dryRun` compare all pages too.
   */
  readonly full: boolean;
  /** How long a comparison of all pages counts, in milliseconds; default 7 days, the longest. 0 is as `full`. */
  readonly fullEveryMs: number;
  /** How to read databases: 'file' (default) mostly without SQLite; 'dbpage' only with SQLite, as the reference. */
  readonly reader: Reader;
  /** How long to wait for locks of other programs, in milliseconds; default 10,000. */
  readonly busyTimeoutMs: number;
  /**
   * The longest that a snapshot may be held, in milliseconds; default 0, no limit. A copy that takes longer is made in
   * rounds, and shows the snapshot of the last round.
   */
  readonly maxSnapshotMs: number;
  /**
   * The most that the origin's WAL may grow while a snapshot is held, in bytes; default 0, no limit. See
   * `maxSnapshotMs`.
   */
  readonly maxWalGrowthBytes: number;
  /**
   * The part of the replica's pages that the origin may have lost since the last copy, in percent; beyond it the sync
   * fails with ORIGIN_SHRUNK. By default it only warns if the origin is empty or nearly so.
   */
  readonly maxShrinkPercent: number | undefined;
}

/** A request as a caller gives it: missing fields get their defaults. */
export type CopyRequestOptions = { readonly [Name in keyof CopyRequest]?: CopyRequest[Name] | undefined };

/** A switch, off by default. */
interface Flag {
  readonly kind: 'flag';
}

/** One of the names of a table of the protocol. */
interface Choice<Name extends string> {
  readonly kind: 'choice';
  readonly values: Readonly<Record<Name, number>>;
  readonly default: Name;
}

/** A whole number. */
interface Quantity {
  readonly kind: 'quantity';
  readonly unit: 'ms' | 'bytes';
  readonly default: number;
}

/** A whole percentage, or no limit. */
interface Percentage {
  readonly kind: 'percentage';
}

type Field<Value> = [Value] extends [boolean]
  ? Flag
  : [Value] extends [string]
    ? Choice<Value>
    : [Value] extends [number]
      ? Quantity
      : Percentage;

export const COPY_REQUEST: { readonly [Name in keyof CopyRequest]: Field<CopyRequest[Name]> } = {
  hash: { kind: 'choice', values: HASH_ALGORITHMS, default: DEFAULT_HASH },
  compression: { kind: 'choice', values: COMPRESSION_MODES, default: 'auto' },
  dryRun: { kind: 'flag' },
  overwrite: { kind: 'flag' },
  replace: { kind: 'flag' },
  followLinks: { kind: 'flag' },
  check: { kind: 'flag' },
  full: { kind: 'flag' },
  fullEveryMs: { kind: 'quantity', unit: 'ms', default: 7 * 86_400_000 },
  reader: { kind: 'choice', values: READERS, default: 'file' },
  busyTimeoutMs: { kind: 'quantity', unit: 'ms', default: 10_000 },
  maxSnapshotMs: { kind: 'quantity', unit: 'ms', default: 0 },
  maxWalGrowthBytes: { kind: 'quantity', unit: 'bytes', default: 0 },
  maxShrinkPercent: { kind: 'percentage' },
};

type AnyField = (typeof COPY_REQUEST)[keyof CopyRequest];

/** Fills in the defaults. Pure. */
export function copyRequest(options: CopyRequestOptions): CopyRequest {
  const values = Object.entries(COPY_REQUEST).map(([name, field]) => [
    name,
    options[name as keyof CopyRequest] ?? defaultOf(field),
  ]);
  return Object.fromEntries(values) as CopyRequest;
}

function defaultOf(field: AnyField): unknown {
  if (field.kind === 'percentage') return undefined;
  return field.kind === 'flag' ? false : field.default;
}

type WireRequest = Pick<MessageOf<'replicate'>, keyof CopyRequest>;

/** The request as fields of `replicate`. Pure. */
export function encodeRequest(request: CopyRequest): WireRequest {
  const values = Object.entries(COPY_REQUEST).map(([name, field]) => {
    const value = request[name as keyof CopyRequest];
    if (field.kind === 'choice') return [name, (field.values as Record<string, number>)[value as string]];
    return [name, field.kind === 'percentage' ? (value ?? NO_SHRINK_LIMIT) : value];
  });
  return Object.fromEntries(values) as WireRequest;
}

/** Throws SqlsyncError PROTOCOL for an invalid value. Pure. */
export function decodeRequest(message: WireRequest): CopyRequest {
  const values = Object.entries(COPY_REQUEST).map(([name, field]) => [
    name,
    decodeField(name, field, message[name as keyof CopyRequest]),
  ]);
  return Object.fromEntries(values) as CopyRequest;
}

function decodeField(name: string, field: AnyField, value: number | boolean): unknown {
  if (field.kind === 'flag' || field.kind === 'quantity') return value;
  const isUnlimited = field.kind === 'percentage' && value === NO_SHRINK_LIMIT;
  if (isUnlimited) return undefined;
  const decoded =
    field.kind === 'choice'
      ? nameOf(field.values, value as number)
      : (value as number) <= MAX_SHRINK_PERCENT
        ? value
        : undefined;
  if (decoded !== undefined) return decoded;
  throw new SqlsyncError('PROTOCOL', `The other side sent ${value} as ${name}, which is not a valid value`);
}
