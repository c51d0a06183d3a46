import './environment.ts';
import { PassThrough } from 'node:stream';
import type { Readable, Writable } from 'node:stream';
import Database from 'better-sqlite3';
import { message } from '../../protocol/encode.ts';
import { FRAME_HEADER_BYTES } from '../../protocol/limits.ts';
import { MESSAGES, nameOf, OUTCOMES } from '../../protocol/messages.ts';
import type { MessageName, MessageOf, Outcome } from '../../protocol/messages.ts';
import { PREAMBLE } from '../../protocol/version.ts';
import { toSqlsyncError } from '../../src/errors.ts';
import type { StagingRule } from '../../src/replica/spool/staging.ts';
import { Announcements } from '../../src/sync/request/announcements.ts';
import { copyRequest } from '../../src/sync/request/copy-request.ts';
import type { CopyRequestOptions } from '../../src/sync/request/copy-request.ts';
import type { AccessCheck } from '../../src/sync/request/restriction.ts';
import type { SnapshotLimits } from '../../src/sync/request/snapshot-limit.ts';
import { Connection } from '../../src/sync/link/connection.ts';
import { runFarAgent } from '../../src/sync/agents/far-agent.ts';
import { runReplica } from '../../src/sync/agents/replica-agent.ts';
import { memoryTransportPair } from '../../src/transport/memory.ts';
import type { Transport } from '../../src/transport/transport.ts';

export interface SyncHereOptions extends CopyRequestOptions {
  readonly origin: string;
  readonly replica: string;
  readonly staging?: StagingRule;
  readonly limits?: SnapshotLimits;
  readonly access?: AccessCheck;
  /** See {@link stepByFrame}. */
  readonly onFrame?: FrameHook;
  /** Messages of the origin agent for the user. */
  readonly onWarning?: (warning: string) => void;
  /** Notes of both agents. */
  readonly onNote?: (note: string) => void;
}

export interface SyncHereResult extends MessageOf<'done'> {
  readonly outcomeName: Outcome;
  readonly rounds: number;
  readonly snapshotHeldMs: number;
  readonly walGrowthBytes: number;
}

/**
 * One sync with both agents in this process, over a memory transport: the same agents and messages as of `runSync`
 * without the start of a process. Both databases must be closed in this process. Throws SqlsyncError.
 */
export async function syncHere(options: SyncHereOptions): Promise<SyncHereResult> {
  const [near, far] = memoryTransportPair();
  const originEnded = runFarAgent(far, { idleTimeoutMs: 0 }).then(
    () => undefined,
    (error: unknown) => toSqlsyncError(error),
  );
  let hookFailure: unknown;
  const { onFrame } = options;
  const transport =
    onFrame === undefined
      ? near
      : stepByFrame(near, async (frame) => {
          try {
            return await onFrame(frame);
          } catch (error) {
            throw (hookFailure ??= error);
          }
        });
  const connection = new Connection(transport, 'opening', { idleTimeoutMs: 0 });
  try {
    const { done, rounds, snapshotHeldMs, walGrowthBytes } = await runReplica(connection, {
      path: options.replica,
      originPath: options.origin,
      originName: options.origin,
      ...copyRequest({ ...options, ...options.limits }),
      staging: options.staging,
      access: options.access,
      onSnapshot: (snapshot) =>
        new Announcements({
          onWarning: (warning) => options.onWarning?.(warning),
          onNote: options.onNote,
        }).snapshot(snapshot),
      onNote: options.onNote,
    });
    connection.send(message('close', {}));
    connection.end();
    const failure = await originEnded;
    if (failure !== undefined) throw failure;
    const outcomeName = nameOf(OUTCOMES, done.outcome) as Outcome;
    return { ...done, outcomeName, rounds, snapshotHeldMs, walGrowthBytes };
  } catch (error) {
    // The assertion of a hook counts, not the sync's own failure after it.
    throw hookFailure ?? error;
  } finally {
    transport.terminate();
    await originEnded;
  }
}

export interface Frame {
  readonly from: 'origin' | 'replica';
  readonly name: MessageName;
}

/** Called before a frame is passed on; a frame for which it returns 'cut' is the last that the connection carries. */
export type FrameHook = (frame: Frame) => Promise<'cut' | void> | 'cut' | void;

/**
 * `far` as a transport that stops at every frame, in both directions, until `onFrame` has returned. A frame that is
 * cut off does not arrive, and both sides see the connection end, cleanly and without an error.
 */
export function stepByFrame(far: Transport, onFrame: FrameHook): Transport {
  const input = new PassThrough();
  const output = new PassThrough();
  output.on('error', () => {});
  const failed = (error: unknown): void => {
    far.terminate();
    input.destroy(toSqlsyncError(error));
  };
  const cut = (): void => {
    far.terminate();
    input.end();
  };
  // One frame at a time, in either direction.
  let turn: Promise<unknown> = Promise.resolve();
  const inTurn: FrameHook = (frame) => {
    const result = turn.then(() => onFrame(frame));
    turn = result.catch(() => {});
    return result;
  };
  relay(far.input, input, 'origin', inTurn, cut).catch(failed);
  relay(output, far.output, 'replica', inTurn, cut).catch(failed);
  const terminate = (): void => {
    far.terminate();
    input.destroy();
    output.destroy();
  };
  return { description: `${far.description}, frame by frame`, input, output, exited: far.exited, terminate };
}

async function relay(
  from: Readable,
  to: Writable,
  side: Frame['from'],
  onFrame: FrameHook,
  cut: () => void,
): Promise<void> {
  let bytes = Buffer.alloc(0);
  let preambleSeen = false;
  for await (const chunk of from as AsyncIterable<Buffer>) {
    bytes = Buffer.concat([bytes, chunk]);
    for (;;) {
      const length = preambleSeen ? frameLength(bytes) : PREAMBLE.length;
      if (length === undefined || bytes.length < length) break;
      if (preambleSeen && (await onFrame({ from: side, name: messageName(bytes) })) === 'cut') return cut();
      preambleSeen = true;
      if (to.destroyed) return;
      to.write(bytes.subarray(0, length));
      bytes = bytes.subarray(length);
    }
  }
  to.end();
}

function frameLength(bytes: Buffer): number | undefined {
  return bytes.length < FRAME_HEADER_BYTES ? undefined : FRAME_HEADER_BYTES + bytes.readUInt32LE(0);
}

function messageName(frame: Buffer): MessageName {
  const names = Object.keys(MESSAGES) as MessageName[];
  return names.find((name) => MESSAGES[name].code === frame[4]) as MessageName;
}

/** Opens a database in this process, changes it and closes it again, so that a sync may follow. */
export function change<T>(path: string, action: (db: Database.Database) => T): T {
  const db = new Database(path);
  try {
    db.pragma('synchronous = OFF');
    return action(db);
  } finally {
    db.close();
  }
}
