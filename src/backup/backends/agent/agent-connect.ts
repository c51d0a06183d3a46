import { Connection } from '../../../sync/link/connection.ts';
import { greetingTimeoutMs, startAgent } from '../../../sync/link/start-agent.ts';
import { parseAgentAddress } from './address.ts';
import type { AgentPlace } from './agent-files.ts';

/** Silence after which either side counts as lost: a thread that waits for pages hears nothing for a while. */
const IDLE_TIMEOUT_MS = 60_000;

/**
 * How to reach the store of an address: by the SSH built in, as configured for OpenSSH, or by the remote shell that
 * SQLSYNC_RSH names. Throws SqlsyncError USAGE.
 */
export function agentPlace(address: string): AgentPlace {
  const location = parseAgentAddress(address);
  const rsh = process.env['SQLSYNC_RSH'] ?? '';
  const remote = rsh === '' ? {} : { rsh };
  return {
    address,
    path: location.path,
    connect: async () =>
      new Connection(await startAgent(location, { remote }), 'openingStore', {
        idleTimeoutMs: IDLE_TIMEOUT_MS,
        greetingTimeoutMs: greetingTimeoutMs(location, remote, IDLE_TIMEOUT_MS),
      }),
  };
}
