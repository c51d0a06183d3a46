import { resolve } from 'node:path';
import type { Writable } from 'node:stream';
import { message } from '../../../protocol/encode.ts';
import { nameOf, OUTCOMES, PHASES } from '../../../protocol/messages.ts';
import type { MessageOf } from '../../../protocol/messages.ts';
import { SqlsyncError } from '../../errors.ts';
import type { Connection } from '../../sync/link/connection.ts';
import { converse } from '../../sync/runs/conversation.ts';
import type { Traffic } from '../../sync/runs/conversation.ts';
import { Announcements } from '../../sync/request/announcements.ts';
import { copyRequest, encodeRequest } from '../../sync/request/copy-request.ts';
import { serveOrigin } from '../../sync/agents/origin-agent.ts';
import { PageStream } from '../../sync/stream/page-stream.ts';
import { streamSource } from '../../sync/stream/stream-source.ts';
import type { OriginResult } from '../../sync/agents/origin-agent.ts';
import { replicaFailure } from '../../replica/replica-failure.ts';
import { lockBytePage } from '../../pages/page-types.ts';
import type { PageSize } from '../../pages/page-types.ts';
import { parseLocation } from '../../transport/location.ts';
import type { Location } from '../../transport/location.ts';
import { findSnapshot } from '../snapshots/find-snapshot.ts';
import { openStoreAtPlace } from '../open-store.ts';
import type { RestoreOptions, RestoreSummary } from '../options.ts';
import { refuseWithinStore } from '../copy/outside-store.ts';
import { restoreNew } from './restore-new.ts';
import { salvageTo } from './salvage.ts';
import { StoredOrigin } from '../snapshots/stored-origin.ts';
import type { StoreAccess, StoreContents } from '../files/store-files.ts';
import { SteppedOrigin } from '../steps/stepped-origin.ts';
import { loadOverlay } from '../steps/stored-steps.ts';
import { withLists } from '../files/store-lists.ts';
import type { StoreLists } from '../files/store-lists.ts';
import { stillIntact } from '../check/still-intact.ts';
import type { StoreSnapshot } from '../types.ts';

/**
 * Makes `target` the database of a snapshot: a new file with its exact bytes, or an existing database in which only the
 * differences are written, in one transaction. Throws SqlsyncError; the target is then unchanged.
 *
 * With `output`, the stream gets the database, and `target` is only its name. What it got before an error is worthless.
 */
export async function runRestore(
  options: RestoreOptions & { readonly output?: Writable | undefined },
): Promise<RestoreSummary> {
  const startedAt = performance.now();
  const announcements = new Announcements(options);
  const { warnings } = announcements;
  const warn = (text: string): void => announcements.warn(text);
  const target = parseLocation(options.target);
  const { password, acceptNewStore, cache, signal } = options;
  const opening = { password, acceptNewStore, cache, signal, onWarning: warn };
  const access = await openStoreAtPlace(options.store, opening);
  if (options.output === undefined) refuseWithinStore(options.store, target);
  const stream = options.output && new PageStream(options.output, options.signal);
  const traffic = { bytesSent: 0, bytesReceived: 0 };
  const onBad = (_: string, error: SqlsyncError): void => warn(error.message);
  const needs: StoreSnapshot[] = [];
  const again = {
    needs,
    onBadSnapshot: onBad,
    onBadContents: onBad,
    onAgain: (why: string) => options.onNote?.(why),
    explain: withIntactSnapshots,
  };
  return withLists(access, again, async ({ snapshots, contents }) => {
    // The first choice stays, even if a newer snapshot was made since.
    const wanted = needs[0]?.id ?? options.snapshot;
    const snapshot = findSnapshot(snapshots, wanted, access.backend.description);
    needs[0] = snapshot;
    const { state, open } = await stateOf(access, contents, snapshot, options);
    if (stream !== undefined) {
      const source = open();
      source.readsInOrder();
      await streamSource(source, stream, options.onProgress);
      return summarize(options, state, madeHere(state), traffic, { warnings, startedAt });
    }
    if (options.salvage === true && snapshot.pageCount > 0) {
      const path = newFileHere(options, target);
      const salvaged = await salvageTo(
        path,
        snapshot,
        { contents, snapshots },
        { ...options, onSinkWarning: warn },
      );
      return {
        ...summarize(options, snapshot, madeHere(snapshot), traffic, { warnings, startedAt }),
        salvaged,
      };
    }
    if (await isMadeHere(options, target, { open, snapshot: state, onSinkWarning: warn }))
      return summarize(options, state, madeHere(state), traffic, { warnings, startedAt });
    const { done } = await converse(
      target,
      'offering',
      { run: options, traffic, onWarning: warn },
      (connection) => serve(connection, options, target, open, state),
    );
    for (const warning of done.warnings) warn(warning);
    return summarize(options, state, done, traffic, { warnings, startedAt });
  }).catch((error: unknown) => {
    throw stream === undefined ? ofTarget(error, target, options) : error;
  });
}

/**
 * What is restored: the snapshot, or a later state with the steps that lead to it. Throws SqlsyncError STORE_*,
 * SNAPSHOT_NOT_FOUND, and USAGE for a salvage of a later state.
 */
async function stateOf(
  access: StoreAccess,
  { reader }: StoreContents,
  snapshot: StoreSnapshot,
  { moment, salvage }: RestoreOptions,
): Promise<{ readonly state: StoreSnapshot; readonly open: () => StoredOrigin }> {
  if (moment === undefined) return { state: snapshot, open: () => new StoredOrigin(reader, snapshot) };
  if (salvage === true)
    throw new SqlsyncError('USAGE', '--salvage takes a snapshot, not a state after it', {
      hint: `Name it by its id: STORE#${snapshot.id.slice(0, 8)}`,
    });
  const overlay = await loadOverlay(access, snapshot, moment);
  const state = { ...snapshot, time: moment.time, pageCount: overlay.pageCount };
  return { state, open: () => new SteppedOrigin(reader, snapshot, overlay) };
}

/** Throws SqlsyncError USAGE for a salvage that could lose something. */
function newFileHere({ dryRun, overwrite, replace }: RestoreOptions, target: Location): string {
  if (target.kind !== 'local') {
    throw new SqlsyncError(
      'USAGE',
      '--salvage writes to a new file of this host; the target is on another one',
      {
        hint: 'Name a place on this host, check the result, and copy it there.',
      },
    );
  }
  const other = Object.entries({ '--dry-run': dryRun, '--overwrite': overwrite, '--replace': replace });
  const [named] = other.find(([, isGiven]) => isGiven === true) ?? [];
  if (named === undefined) return resolve(target.path);
  throw new SqlsyncError('USAGE', `--salvage and ${named} exclude each other`, {
    hint: 'A salvaged database is not complete, so it only goes to a new file.',
  });
}

/** Returns true if the target was a missing file on this host, and exists now. */
async function isMadeHere(
  options: RestoreOptions,
  target: Location,
  made: {
    readonly open: () => StoredOrigin;
    readonly snapshot: StoreSnapshot;
    readonly onSinkWarning: (warning: string) => void;
  },
): Promise<boolean> {
  // The connection enforces a time limit, so a run with one does not take this way.
  if (target.kind !== 'local' || options.dryRun === true || options.maxTimeMs !== undefined) return false;
  const { open, snapshot, onSinkWarning } = made;
  return restoreNew(open(), snapshot, resolve(target.path), { ...options, onSinkWarning });
}

/** The report of the other side for a new file. */
function madeHere({ pageCount, pageSize }: StoreSnapshot): Outcomes {
  const pages = pageCount < lockBytePage(pageSize as PageSize) ? pageCount : pageCount - 1;
  return {
    outcome: OUTCOMES.committed,
    pagesChanged: pages,
    pagesTransferred: pages,
    pagesDelta: 0,
    created: true,
  };
}

type Outcomes = Pick<
  MessageOf<'done'>,
  'outcome' | 'pagesChanged' | 'pagesTransferred' | 'pagesDelta' | 'created'
>;

async function serve(
  connection: Connection,
  options: RestoreOptions,
  target: Location,
  open: () => StoredOrigin,
  snapshot: StoreSnapshot,
): Promise<OriginResult> {
  connection.send(
    message('replicate', {
      ...encodeRequest(copyRequest({ ...options, compression: options.compress })),
      path: target.kind === 'local' ? resolve(target.path) : target.path,
      originName: `${snapshot.host}:${snapshot.path}`,
      restore: true,
      lookEveryMs: 0,
      makeFolders: false,
      idleTimeoutMs: connection.idleTimeoutMs,
      maxTimeMs: connection.maxTimeMs,
      stage: false,
    }),
  );
  return serveOrigin(connection, await connection.receiveOnly('open'), {
    restored: open,
    dryRun: options.dryRun,
    signal: options.signal,
    onProgress: (progress) => {
      const phase = nameOf(PHASES, progress.phase);
      if (phase !== undefined) options.onProgress?.({ ...progress, phase });
    },
  });
}

/** Names what the run left beside a target on this host. */
function ofTarget(error: unknown, target: Location, { followLinks = false }: RestoreOptions): unknown {
  if (target.kind !== 'local') return error;
  return replicaFailure(error, { path: resolve(target.path), followLinks, restores: true });
}

/** If this snapshot cannot be restored, the user wants to know which others can. */
function withIntactSnapshots(failure: SqlsyncError, { contents, snapshots }: StoreLists): SqlsyncError {
  if (failure.code !== 'STORE_DAMAGED' && failure.code !== 'STORE_FILE_MISSING') return failure;
  const intact = stillIntact(contents, snapshots);
  const ids = intact.map(({ id }) => id.slice(0, 8)).toReversed();
  const hint =
    ids.length === 0
      ? 'Every snapshot needs a damaged file. `sqlsync check STORE --read-data` shows which snapshots can be restored nevertheless.'
      : `These snapshots need nothing that was found damaged, newest first: ${ids.slice(0, 10).join(', ')}${ids.length > 10 ? ', …' : ''}; \`sqlsync check STORE --read-data\` checks everything.`;
  const salvage = '`restore --salvage` writes what is left of this one to a new file.';
  return new SqlsyncError(failure.code, failure.message, { hint: `${hint} ${salvage}`, cause: failure });
}

function summarize(
  options: RestoreOptions,
  snapshot: StoreSnapshot,
  done: Outcomes,
  traffic: Traffic,
  { warnings, startedAt }: { readonly warnings: readonly string[]; readonly startedAt: number },
): RestoreSummary {
  const outcome = nameOf(OUTCOMES, done.outcome);
  if (outcome === undefined)
    throw new SqlsyncError('PROTOCOL', `The other side reported outcome ${done.outcome}`);
  return {
    snapshot,
    step: options.moment?.step ?? 0,
    target: options.target,
    outcome,
    pagesChanged: done.pagesChanged,
    pagesTransferred: done.pagesTransferred,
    pagesDelta: done.pagesDelta,
    ...traffic,
    durationMs: Math.round(performance.now() - startedAt),
    created: done.created,
    warnings,
  };
}
