import { resolve } from 'node:path';
import { PHASES } from '../../../protocol/messages.ts';
import type { MessageOf } from '../../../protocol/messages.ts';
import { message } from '../../../protocol/encode.ts';
import { makeFolders, placeOfTrial } from '../../files/make-folders.ts';
import { SqlsyncError, toSqlsyncError } from '../../errors.ts';
import { withholdCommands } from '../../sqlite/locks/holder-watch.ts';
import type { Transport } from '../../transport/transport.ts';
import { Connection } from '../link/connection.ts';
import { decodeRequest } from '../request/copy-request.ts';
import { FollowedReplica } from '../quick/followed-replica.ts';
import { serveExamination } from './examine-agent.ts';
import { FollowedOrigin } from './followed-origin.ts';
import { serveList } from './list-agent.ts';
import { serveOrigin } from './origin-agent.ts';
import { serveRecognition } from './recognize-agent.ts';
import { runReplica } from './replica-agent.ts';
import type { Restriction } from '../request/restriction.ts';
import type { StoreRights } from '../request/store-rights.ts';

export interface FarAgentOptions {
  /** The limit of silence until the near side has sent its request and its own limit. */
  readonly idleTimeoutMs: number;
  /**
   * The longest that one database may take, in milliseconds, even if the near side allows more; undefined means no
   * limit.
   */
  readonly maxTimeMs?: number | undefined;
  /** What the near side may name; undefined means anything. */
  readonly restriction?: Restriction | undefined;
  /** Serves a store until the peer sends `close`; missing if this agent serves none. */
  readonly serveStore?: ServeStore | undefined;
  readonly signal?: AbortSignal | undefined;
}

export type ServeStore = (
  connection: Connection,
  asked: MessageOf<'openStore'>,
  rights: StoreRights | undefined,
) => Promise<void>;

/**
 * The far side of a connection: does what the near side's first message asks, one database after another, until
 * `close`. Reports an error to the peer, then throws it.
 */
export async function runFarAgent(transport: Transport, options: FarAgentOptions): Promise<void> {
  const { idleTimeoutMs, signal } = options;
  const connection = new Connection(transport, 'unassigned', { idleTimeoutMs, signal });
  if (options.restriction !== undefined) withholdCommands();
  const followed = new FollowedOrigin();
  let replica: FollowedReplica | undefined;
  try {
    for (;;) {
      const next = await connection.receive();
      if (next.type === 'close') break;
      // A file that this process opens a second time, and closes, would lose the locks of the kept connection.
      if (next.type !== 'open' || next.lookEveryMs === 0) await followed.close();
      if (next.type === 'open') {
        connection.agree(next, options);
        await serveOrigin(connection, next, { access: options.restriction?.origin, signal, followed });
      } else if (next.type === 'examine') {
        connection.agree(next, options);
        await serveExamination(connection, next, { access: options.restriction?.origin, signal });
      } else if (next.type === 'list') {
        connection.agree(next, options);
        await serveList(connection, next, { access: options.restriction?.origin });
      } else if (next.type === 'recognize') {
        connection.agree(next, options);
        await serveRecognition(connection, next, { access: options.restriction?.replica });
      } else if (next.type === 'replicate') {
        replica = next.lookEveryMs > 0 ? (replica ?? followedReplica(next)) : undefined;
        await replicate(connection, next, { ...options, followed: replica });
      } else if (next.type === 'openStore') {
        connection.agree(next, options);
        await storeServer(options)(connection, next, options.restriction?.store);
        break;
      }
      connection.state = 'unassigned';
    }
    connection.detach();
    connection.end();
  } catch (error) {
    const failure = toSqlsyncError(error);
    connection.sendError(failure);
    connection.end();
    throw failure;
  } finally {
    await followed.close();
  }
}

/** Throws SqlsyncError PROTOCOL. */
function storeServer({ serveStore }: FarAgentOptions): ServeStore {
  if (serveStore !== undefined) return serveStore;
  throw new SqlsyncError('PROTOCOL', 'This agent serves no stores');
}

/** Throws SqlsyncError PROTOCOL. */
function followedReplica(asked: MessageOf<'replicate'>): FollowedReplica {
  return new FollowedReplica({ ...decodeRequest(asked), lookEveryMs: asked.lookEveryMs });
}

/**
 * The far side of an agent that was started wrongly, for example by a forced command whose folder is gone: answers the
 * first message with the reason. Without an answer the near side would assume a broken connection, and try again.
 */
export async function refuseToServe(
  transport: Transport,
  failure: SqlsyncError,
  idleTimeoutMs: number,
): Promise<void> {
  const connection = new Connection(transport, 'unassigned', { idleTimeoutMs });
  try {
    await connection.receive();
  } catch {
    // A peer that asks for nothing, or speaks another version, gets the same answer.
  }
  connection.sendError(
    new SqlsyncError(
      'RESTRICTED',
      `The agent there cannot start as its command line says: ${failure.message}`,
      {
        hint: 'Ask the administrator of that host to correct the command of the key in authorized_keys, or what --remote-exe runs.',
      },
    ),
  );
  connection.end();
}

async function replicate(
  connection: Connection,
  asked: MessageOf<'replicate'>,
  options: FarAgentOptions & { readonly followed: FollowedReplica | undefined },
): Promise<void> {
  const { restriction, signal, followed } = options;
  const request = decodeRequest(asked);
  connection.agree(asked, options);
  const access = restriction?.replica;
  const named = access?.path(asked.path, { keepLink: !request.followLinks }) ?? resolve(asked.path);
  const path = asked.makeFolders && request.dryRun ? placeOfTrial(named) : named;
  if (asked.makeFolders && !request.dryRun) makeFolders(path);
  await runReplica(connection, {
    ...request,
    path,
    access,
    originPath: '',
    originName: asked.originName,
    over: connection.over,
    restores: asked.restore,
    staging: asked.stage ? 'always' : 'large',
    followed,
    signal,
    onProgress: (progress) =>
      connection.send(message('progress', { ...progress, phase: PHASES[progress.phase] })),
  });
}
