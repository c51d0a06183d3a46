import { SqlsyncError } from '../../errors.ts';
import type { RestrictionOptions } from '../../sync/request/restriction.ts';

/** What a key may do inside a folder. */
export const RESTRICTION_OPTIONS = {
  'read-only': { describe: 'Serve origins only: nothing is ever written' },
  'write-only': { describe: 'Write replicas only: no database can be fetched' },
  'allow-create': { describe: 'Replicas that do not exist may be made' },
} as const;

export interface RestrictionArguments {
  readonly restrict?: string | undefined;
  readonly readOnly?: boolean;
  readonly writeOnly?: boolean;
  readonly allowCreate?: boolean;
}

/** A flag that would restrict nothing is a mistake, and must not look like a restriction. Throws SqlsyncError USAGE. */
export function restrictionOf(args: RestrictionArguments): RestrictionOptions | undefined {
  const { restrict: folder, readOnly = false, writeOnly = false, allowCreate = false } = args;
  if (folder === undefined) {
    if (!readOnly && !writeOnly && !allowCreate) return undefined;
    throw new SqlsyncError('USAGE', '--read-only, --write-only and --allow-create need --restrict', {
      hint: 'Give the folder: --restrict DIR; / stands for all files.',
    });
  }
  if (readOnly && (writeOnly || allowCreate)) {
    const other = writeOnly ? '--write-only' : '--allow-create';
    throw new SqlsyncError('USAGE', `--read-only and ${other} exclude each other`, {
      hint: 'Give one of them.',
    });
  }
  if (folder === '')
    throw new SqlsyncError('USAGE', '--restrict: the folder is empty', {
      hint: 'Name a folder that exists.',
    });
  const access = readOnly ? 'read' : writeOnly ? 'write' : 'both';
  return { folder, access, create: allowCreate };
}
