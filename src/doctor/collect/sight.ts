import { readFileSync, readlinkSync } from 'node:fs';
import { networkFileSystem } from '../../files/mounts.ts';
import type { Sight } from '../facts.ts';

/** The kernel's fixed number for the PID namespace in which the system began. */
const FIRST_PID_NAMESPACE = 'pid:[4026531836]';

/** What can be seen of the processes that may have a database open. */
export interface SightFacts {
  readonly sight: Sight;
  /** What limits it, one sentence each. */
  readonly limits: readonly string[];
}

/** How far this process sees who uses the database at `path` (absolute and real). */
export function sightOn(path: string): SightFacts {
  if (process.platform !== 'linux')
    return {
      sight: 'files',
      limits: [
        'This system lists neither the locks nor the open files of processes: only files were looked at.',
      ],
    };
  const limits: string[] = [];
  const isWholeSystem = contentOf(() => readlinkSync('/proc/self/ns/pid')) === FIRST_PID_NAMESPACE;
  if (!isWholeSystem)
    limits.push(
      'This is a container with process ids of its own: neither processes outside of it nor their locks are listed here (run doctor on the host).',
    );
  const network = networkFileSystem(path);
  if (network !== undefined)
    limits.push(
      `The file system (${network}) may be shared: processes and locks of other machines are not listed.`,
    );
  const sight = limits.length === 0 ? 'all' : 'some';
  if (process.getuid?.() !== 0 && areProcessesHidden())
    limits.push(
      'This system hides the processes of other users (hidepid): those that hold no lock now are not listed (run doctor as root).',
    );
  return { sight, limits };
}

/** https://docs.kernel.org/filesystems/proc.html, "Mount Options". */
function areProcessesHidden(): boolean {
  const mounts = contentOf(() => readFileSync('/proc/self/mountinfo', 'utf8')) ?? '';
  return /^\S+ \S+ \S+ \S+ \/proc .*\bhidepid=(?:2|4|invisible|ptraceable)\b/m.test(mounts);
}

function contentOf(read: () => string): string | undefined {
  try {
    return read();
  } catch {
    return undefined;
  }
}
