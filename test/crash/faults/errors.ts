import type { Role } from '../../support/relay-near.ts';
import type { FaultGroup } from './group.ts';
import { atEveryCall } from './system-calls.ts';
import type { CallFault } from './system-calls.ts';
import type { Call } from './traced-agent.ts';

const CHANGING: ReadonlySet<string> = new Set(['pwrite64', 'write', 'fsync', 'fdatasync', 'ftruncate']);
const NAMING: ReadonlySet<string> = new Set(['rename', 'renameat2', 'link', 'linkat', 'unlink', 'unlinkat']);
const TAKING_ROOM: ReadonlySet<string> = new Set(['pwrite64', 'write', 'fsync', 'fdatasync', 'openat']);

const changes = ({ name }: Call): boolean => CHANGING.has(name);
const names = ({ name }: Call): boolean => NAMING.has(name);
const creates = ({ name, text }: Call): boolean => name === 'openat' && text.includes('O_CREAT');
const takesRoom = (call: Call): boolean => TAKING_ROOM.has(call.name) && !isMereOpen(call);
const isMereOpen = (call: Call): boolean => call.name === 'openat' && !creates(call);
const reads = ({ name }: Call): boolean => name === 'pread64';
const locks = ({ name, text }: Call): boolean => name === 'fcntl' && text.includes('F_SETLK');

/** Errors of the system at each call of an agent that could meet them. */
export const errors: FaultGroup = (options) =>
  atEveryCall(
    [
      fault('EIO', 'once', 'a write, fsync or truncation', changes),
      fault('EIO', 'from then on', 'a write, fsync or truncation', changes),
      fault('EIO', 'once', 'a link, rename or unlink', names),
      fault('EPERM', 'from then on', 'a link, rename or unlink', names),
      fault('ENOSPC', 'once', 'a write, fsync or new file', takesRoom),
      fault('ENOSPC', 'from then on', 'a write, fsync or new file', takesRoom),
      fault('EDQUOT', 'from then on', 'a write, fsync or new file', takesRoom),
      fault('EACCES', 'once', 'a new file', creates),
      fault('EIO', 'once', 'a read', reads, ['push', 'pull']),
      fault('EIO', 'from then on', 'a read', reads, ['push', 'pull']),
      fault('ENOLCK', 'from then on', 'a lock', locks, ['push', 'pull']),
    ],
    options,
  );

function fault(
  error: string,
  duration: CallFault['duration'],
  of: string,
  isMet: CallFault['isMet'],
  ends: readonly Role[] = ['push'],
): CallFault {
  return { name: `${error} of ${of}, ${duration}`, effect: `error=${error}`, duration, isMet, ends };
}
