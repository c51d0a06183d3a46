import { message } from '../../protocol/encode.ts';
import { OUTCOMES } from '../../protocol/messages.ts';
import type { MessageOf } from '../../protocol/messages.ts';
import { toSqlsyncError } from '../../src/errors.ts';
import type { SqlsyncError } from '../../src/errors.ts';
import { Connection } from '../../src/sync/link/connection.ts';
import { copyRequest, encodeRequest } from '../../src/sync/request/copy-request.ts';
import { runFarAgent } from '../../src/sync/agents/far-agent.ts';
import { serveOrigin } from '../../src/sync/agents/origin-agent.ts';
import { runReplica } from '../../src/sync/agents/replica-agent.ts';
import type { Transport } from '../../src/transport/transport.ts';
import { relay } from './relay.ts';
import type { Passing, Verdict } from './relay.ts';

/** Pull: the replica is near, push: the origin is. */
export type Role = 'pull' | 'push';

export interface Pair {
  readonly origin: string;
  readonly replica: string;
  /** As `--replace`. */
  readonly replace?: boolean;
  /** As `--check`. */
  readonly check?: boolean;
  /** As `--overwrite`. */
  readonly overwrite?: boolean;
}

/** A peer that hangs fails the test with TIMEOUT. */
const IDLE_TIMEOUT_MS = 20_000;
const BUSY_TIMEOUT_MS = 2000;

export function nearConnection(
  transport: Transport,
  role: Role,
  idleTimeoutMs: number = IDLE_TIMEOUT_MS,
): Connection {
  return new Connection(transport, role === 'pull' ? 'opening' : 'offering', { idleTimeoutMs });
}

/** One database over an open connection, as the near side of `sync.ts` does it. */
export async function copyOver(connection: Connection, role: Role, pair: Pair): Promise<MessageOf<'done'>> {
  const { overwrite, replace, check } = pair;
  const request = copyRequest({
    overwrite,
    replace,
    check,
    busyTimeoutMs: BUSY_TIMEOUT_MS,
    compression: 'none',
  });
  if (role === 'pull') {
    const result = await runReplica(connection, {
      path: pair.replica,
      originPath: pair.origin,
      originName: pair.origin,
      ...request,
    });
    return result.done;
  }
  connection.expect('offering');
  connection.send(
    message('replicate', {
      restore: false,
      lookEveryMs: 0,
      makeFolders: false,
      path: pair.replica,
      originName: pair.origin,
      idleTimeoutMs: connection.idleTimeoutMs,
      maxTimeMs: 0,
      stage: false,
      ...encodeRequest(request),
    }),
  );
  const open = await connection.receiveOnly('open');
  return (await serveOrigin(connection, open, { path: pair.origin })).done;
}

export function closeConnection(connection: Connection): void {
  connection.send(message('close', {}));
  connection.detach();
  connection.end();
}

/** The near side of one sync, from start to end. Rejects as `sync.ts` does, after it has told the peer. */
export async function runNear(
  transport: Transport,
  role: Role,
  pair: Pair,
  idleTimeoutMs?: number,
): Promise<MessageOf<'done'>> {
  const connection = nearConnection(transport, role, idleTimeoutMs);
  try {
    const done = await copyOver(connection, role, pair);
    closeConnection(connection);
    return done;
  } catch (error) {
    const failure = toSqlsyncError(error);
    connection.sendError(failure);
    connection.end();
    throw failure;
  }
}

/** How a run ended, on both sides; undefined means success. */
export interface Ended {
  readonly near: SqlsyncError | undefined;
  readonly far: SqlsyncError | undefined;
  readonly seen: readonly string[];
}

/** Both agents in this process, with `decide` in between. */
export async function runRelayed(
  role: Role,
  pair: Pair,
  decide?: (passing: Passing) => Verdict,
): Promise<Ended> {
  const line = relay(decide);
  const far = runFarAgent(line.far, { idleTimeoutMs: IDLE_TIMEOUT_MS });
  const [nearEnd, farEnd] = await Promise.all([
    failureOf(runNear(line.near, role, pair)),
    failureOf(far).finally(() => line.far.output.end()),
  ]);
  return { near: nearEnd, far: farEnd, seen: line.seen };
}

export async function failureOf(work: Promise<unknown>): Promise<SqlsyncError | undefined> {
  try {
    await work;
    return undefined;
  } catch (error) {
    return toSqlsyncError(error);
  }
}

/** True if `done` reports a commit. */
export function committed(done: MessageOf<'done'>): boolean {
  return done.outcome === OUTCOMES.committed;
}
