import { dirname } from 'node:path';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { message } from '../../../protocol/encode.ts';
import { HASH_ALGORITHMS } from '../../../protocol/messages.ts';
import { fromGaps } from '../../../protocol/page-batch.ts';
import { sanitizeText } from '../../errors.ts';
import { realPath } from '../../files/path-names.ts';
import { folderWarnings } from '../../replica/replica-links.ts';
import { parseLocation } from '../../transport/location.ts';
import type { Location } from '../../transport/location.ts';
import { lookAtKnownCopy } from '../folder/known-copies.ts';
import { Looker } from '../folder/look.ts';
import type { Look } from '../folder/look.ts';
import { BATCH, packStamps } from '../folder/stamp-list.ts';
import { decodePeerData } from '../link/connection.ts';
import type { Connection } from '../link/connection.ts';
import type { CopyRequest } from '../request/copy-request.ts';
import { nameFor } from './sync.ts';
import type { SyncSummary } from './sync.ts';
import type { Pair } from './sync-many.ts';

/** A pair, and its place in both folders. */
export interface PlacedPair extends Pair {
  readonly path: string;
}

/** A folder with its copies. */
export interface Recognition {
  readonly request: CopyRequest;
  /** The folders. */
  readonly origin: Location;
  readonly replica: Location;
  /** The replica is an exact copy, as an earlier run left it; nothing is left to do. */
  onKnown(pair: Pair, summary: SyncSummary): void;
  onWarning(text: string): void;
}

/** True if a pair that is as an earlier run left it needs no sync. */
export function maySkip({ dryRun, check, full, fullEveryMs, reader }: CopyRequest): boolean {
  return !dryRun && !check && !full && fullEveryMs > 0 && reader === 'file';
}

/**
 * The pairs that need a sync, if the replicas are on this host. `stamps` are those of the origins by their places, if
 * they are on another host.
 */
export async function unknownHere(
  pairs: readonly PlacedPair[],
  recognition: Recognition,
  stamps?: ReadonlyMap<string, Uint8Array>,
): Promise<PlacedPair[]> {
  const unknown: PlacedPair[] = [];
  /** A replica in each folder. */
  const folders = new Map<string, string>();
  for (const batch of batchesOf(pairs)) {
    const looker = new Looker();
    for (const pair of batch) {
      const startedAt = performance.now();
      const originStamp = stamps === undefined ? lookAtOrigin(pair, looker)?.stamp : stamps.get(pair.path);
      const originName = nameFor(parseLocation(pair.origin));
      const copy = originStamp && { replica: pair.replica, originName, originStamp };
      const look = copy && lookAtKnownCopy(copy, recognition.request, looker);
      if (look === undefined) unknown.push(pair);
      else {
        folders.set(dirname(pair.replica), pair.replica);
        recognition.onKnown(pair, unchanged(pair, look, performance.now() - startedAt));
      }
    }
    await nextTurn(); // the connection may have to say that this side lives
  }
  for (const text of [...folders.values()].flatMap(folderWarnings)) recognition.onWarning(text);
  return unknown;
}

/** As `unknownHere`, if the replicas are on the other host. Throws SqlsyncError. */
export async function unknownThere(
  connection: Connection,
  pairs: readonly PlacedPair[],
  recognition: Recognition,
): Promise<PlacedPair[]> {
  const startedAt = performance.now();
  const known = new Set<PlacedPair>();
  const asked: { readonly pair: PlacedPair; readonly look: Look }[][] = [];
  for (const batch of batchesOf(pairs)) {
    const looker = new Looker();
    const question = [];
    for (const pair of batch) {
      const look = lookAtOrigin(pair, looker);
      if (look !== undefined) question.push({ pair, look });
    }
    if (question.length === 0) continue;
    asked.push(question);
    ask(connection, recognition, question);
    await connection.drained();
    await nextTurn(); // the other side looks at its part meanwhile
  }
  const answers = [];
  for (const question of asked)
    answers.push({ question, answer: await connection.receiveOnly('recognized') });
  // Only now: after a lost connection all of it is asked again.
  for (const { question, answer } of answers) {
    const places = new Set(decodePeerData(() => fromGaps(answer.known, question.length)));
    for (const [i, { pair, look }] of question.entries()) {
      if (!places.has(i)) continue;
      known.add(pair);
      recognition.onKnown(pair, unchanged(pair, look, performance.now() - startedAt));
    }
    for (const text of answer.warnings) recognition.onWarning(sanitizeText(text));
  }
  return pairs.filter((pair) => !known.has(pair));
}

function ask(
  connection: Connection,
  { request, origin, replica }: Recognition,
  question: readonly { readonly pair: PlacedPair; readonly look: Look }[],
): void {
  const { idleTimeoutMs, maxTimeMs } = connection;
  connection.send(
    message('recognize', {
      path: replica.path,
      originName: nameFor(origin),
      databases: question.map(({ pair }) => pair.path),
      stamps: packStamps(question.map(({ look }) => look.stamp)),
      hash: HASH_ALGORITHMS[request.hash],
      fullEveryMs: request.fullEveryMs,
      idleTimeoutMs,
      maxTimeMs,
    }),
  );
}

function lookAtOrigin({ origin }: Pair, looker: Looker): Look | undefined {
  try {
    return looker.look(realPath(origin));
  } catch {
    return undefined; // the sync says what is wrong
  }
}

function* batchesOf<T>(all: readonly T[]): Generator<readonly T[]> {
  for (let at = 0; at < all.length; at += BATCH) yield all.slice(at, at + BATCH);
}

function unchanged(
  { origin, replica }: Pair,
  { pageSize, pageCount }: Look,
  durationMs: number,
): SyncSummary {
  return {
    origin,
    replica,
    outcome: 'unchanged',
    pageSize,
    pageCount,
    pagesCompared: 0,
    pagesChanged: 0,
    pagesTransferred: 0,
    pagesDelta: 0,
    bytesSent: 0,
    bytesReceived: 0,
    durationMs: Math.round(durationMs),
    attempts: 1,
    rounds: 1,
    snapshotHeldMs: 0,
    walGrowthBytes: 0,
    created: false,
    resumed: false,
    quick: true,
    warnings: [],
    findings: [],
  };
}
