import type { FaultGroup } from './group.ts';
import { atEveryCall } from './system-calls.ts';
import type { Call } from './traced-agent.ts';

/** kill -9 just before a system call that changes a file, takes or releases a lock, or reads the origin. */
export const kill: FaultGroup = (options) =>
  atEveryCall(
    [
      {
        name: 'kill -9 at a system call that changes a file',
        effect: 'signal=SIGKILL',
        duration: 'once',
        isMet: (call) => !['fcntl', 'pread64'].includes(call.name) && !isMereOpen(call),
        ends: ['push'],
      },
      {
        name: 'kill -9 at a lock',
        effect: 'signal=SIGKILL',
        duration: 'once',
        isMet: ({ name, text }) => name === 'fcntl' && text.includes('F_SETLK'),
        ends: ['push', 'pull'],
      },
      {
        name: 'kill -9 at a read of the origin',
        effect: 'signal=SIGKILL',
        duration: 'once',
        isMet: ({ name }) => name === 'pread64',
        ends: ['pull'],
      },
    ],
    options,
  );

function isMereOpen({ name, text }: Call): boolean {
  return name === 'openat' && !text.includes('O_CREAT');
}
