import { statSync } from 'node:fs';
import { toSqlsyncError } from '../../errors.ts';
import type { Location } from '../../transport/location.ts';
import { memoryTransportPair } from '../../transport/memory.ts';
import type { Transport } from '../../transport/transport.ts';
import { runFarAgent } from '../agents/far-agent.ts';

/**
 * The largest database whose agent runs in the near side's process, in bytes with its -wal. Starting a process costs
 * more than a second processor gains for it.
 */
const MAX_BYTES_HERE = 128 * 1024 * 1024;

/** Set to anything, this variable gives every local agent a process of its own: for tests and for diagnosis. */
const OWN_PROCESS_VARIABLE = 'SQLSYNC_AGENT_PROCESS';

/** True if this process may do the work of a local agent. */
export function mayWorkHere(): boolean {
  return process.env[OWN_PROCESS_VARIABLE] === undefined;
}

/**
 * True if the database at `far` is here, and its agent needs no process of its own: the database is small, or
 * `isUnread` because little or nothing has changed.
 */
export function needsNoProcess(far: Location, isUnread: boolean): boolean {
  if (far.kind !== 'local' || !mayWorkHere()) return false;
  if (isUnread) return true;
  try {
    const wal = statSync(`${far.path}-wal`, { throwIfNoEntry: false });
    return statSync(far.path).size + (wal?.size ?? 0) <= MAX_BYTES_HERE;
  } catch {
    return false; // its agent says what is wrong
  }
}

/**
 * Starts a far agent in this process. This process then reads the database, so it must not embed an application that
 * has the database open: see `startAgent`. No limit of silence holds, because both sides share one event loop.
 */
export function startAgentHere(): Transport {
  const [near, far] = memoryTransportPair();
  const controller = new AbortController();
  const exited = runFarAgent(far, { idleTimeoutMs: 0, signal: controller.signal })
    .catch(toSqlsyncError)
    .then(() => near.exited);
  return {
    ...near,
    description: 'the agent in this process',
    exited,
    terminate: () => {
      controller.abort();
      near.terminate();
    },
  };
}
