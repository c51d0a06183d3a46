import { SqlsyncError } from '../../errors.ts';
import type { RestrictionOptions } from '../../sync/request/restriction.ts';

/** What a key may do inside a folder. */
export const RESTRICTION_OPTIONS = {
  'read-only': { describe: 'Serve origins and stores only: nothing is ever written' },
  'append-only': {
    describe: 'Serve origins and stores, and add to stores: nothing is ever deleted or replaced',
  },
  'write-only': { describe: 'Write replicas only: no database can be fetched' },
  'allow-create': { describe: 'Replicas and stores that do not exist may be made' },
} as const;

export interface RestrictionArguments {
  readonly restrict?: string | undefined;
  readonly readOnly?: boolean;
  readonly appendOnly?: boolean;
  readonly writeOnly?: boolean;
  readonly allowCreate?: boolean;
}

/** A flag that would restrict nothing is a mistake, and must not look like a restriction. Throws SqlsyncError USAGE. */
export function restrictionOf(args: RestrictionArguments): RestrictionOptions | undefined {
  const {
    restrict: folder,
    readOnly = false,
    appendOnly = false,
    writeOnly = false,
    allowCreate = false,
  } = args;
  if (folder === undefined) {
    if (!readOnly && !appendOnly && !writeOnly && !allowCreate) return undefined;
    throw new SqlsyncError(
      'USAGE',
      '--read-only, --append-only, --write-only and --allow-create need --restrict',
      { hint: 'Give the folder: --restrict DIR; / stands for all files.' },
    );
  }
  refuseTogether({
    '--read-only': readOnly,
    '--append-only': appendOnly,
    '--write-only': writeOnly,
  });
  refuseTogether({ '--read-only': readOnly, '--allow-create': allowCreate });
  if (folder === '')
    throw new SqlsyncError('USAGE', '--restrict: the folder is empty', {
      hint: 'Name a folder that exists.',
    });
  const access = readOnly ? 'read' : appendOnly ? 'add' : writeOnly ? 'write' : 'both';
  return { folder, access, create: allowCreate };
}

/** Throws SqlsyncError USAGE if more than one is given. */
function refuseTogether(flags: Readonly<Record<string, boolean>>): void {
  const [first, second] = Object.keys(flags).filter((flag) => flags[flag]);
  if (second === undefined) return;
  throw new SqlsyncError('USAGE', `${first} and ${second} exclude each other`, { hint: 'Give one of them.' });
}
