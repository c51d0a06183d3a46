import type { TestContext } from 'node:test';
import { AgentFiles } from '../../src/backup/backends/agent/agent-files.ts';
import { serveStore } from '../../src/backup/backends/agent/serve-store.ts';
import { runFarAgent } from '../../src/sync/agents/far-agent.ts';
import { Connection } from '../../src/sync/link/connection.ts';
import { Restriction } from '../../src/sync/request/restriction.ts';
import type { RestrictionOptions } from '../../src/sync/request/restriction.ts';
import { memoryTransportPair } from '../../src/transport/memory.ts';
import type { Transport } from '../../src/transport/transport.ts';

/** An agent in this process that serves stores; both ends, and how it ended: with an error, or undefined. */
export function storeAgent(restriction?: RestrictionOptions): {
  near: Transport;
  far: Transport;
  ended: Promise<unknown>;
} {
  const [near, far] = memoryTransportPair();
  const ended = runFarAgent(far, {
    idleTimeoutMs: 0,
    serveStore,
    ...(restriction === undefined ? {} : { restriction: new Restriction(restriction) }),
  }).catch((error: unknown) => error);
  return { near, far, ended };
}

/** The files of a store behind such an agent. `onConnect` gets the near end of each connection, and may give another in its place. */
export function agentFiles(
  t: TestContext,
  path: string,
  {
    restriction,
    onConnect,
    wasThere,
  }: {
    readonly restriction?: RestrictionOptions;
    readonly onConnect?: (near: Transport) => Transport | void;
    readonly wasThere?: boolean;
  } = {},
): AgentFiles {
  const connect = (): Promise<Connection> => {
    const { near } = storeAgent(restriction);
    const end = onConnect?.(near) ?? near;
    return Promise.resolve(new Connection(end, 'openingStore', { idleTimeoutMs: 0 }));
  };
  const files = new AgentFiles({ address: `vault:${path}`, path, connect }, wasThere);
  t.after(() => files.close());
  return files;
}
