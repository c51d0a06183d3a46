import { existsSync, realpathSync } from 'node:fs';
import { hostname } from 'node:os';
import type { OpenOptions } from '../../backup/files/access.ts';
import { runBackup } from '../../backup/copy/backup.ts';
import { refusePast } from '../../backup/open-store.ts';
import type { BackupOptions, BackupSummary } from '../../backup/options.ts';
import { planForget } from '../../backup/prune/plan-forget.ts';
import type { ForgetGroup } from '../../backup/prune/plan-forget.ts';
import { DEFAULT_GROUPING, groupSnapshots } from '../../backup/prune/retention.ts';
import type { Grouping, RetentionPolicy } from '../../backup/prune/retention.ts';
import type { PruneSummary } from '../../backup/types.ts';
import { keepYoungGenerationSmall } from '../../backup/young-generation.ts';
import { SqlsyncError, toSqlsyncError } from '../../errors.ts';
import { parseLocation } from '../../transport/location.ts';
import { withMaxTime } from '../../sync/runs/max-time.ts';
import { EXIT_OK, exitStatusOf } from '../terminal/exit.ts';
import { counted, formatBytes, formatCount, formatDuration, formatPages } from '../terminal/format.ts';
import type { Copies, Copy, CopyLabels } from '../job/copies.ts';
import { canonicalLocation, jobOptionsOf, runJob } from '../job/job.ts';
import type { Output } from '../terminal/output.ts';
import { copyListeners } from '../terminal/progress.ts';
import { describeGroups, groupsAsJson, reportPrune, warnOfTimes } from '../store/describe-forget.ts';
import { copyOnward, onwardFailure } from '../store/copy-onward.ts';
import type { OnwardResult } from '../store/copy-onward.ts';
import { KEEP_OPTIONS, groupingOf, policyOf } from '../store/keep-policy.ts';
import { isPattern } from '../store/name-pattern.ts';
import { expandOrigins, explainPattern } from '../store/origins.ts';
import {
  STORES,
  canonicalStore,
  explainName,
  openStoreAt,
  refuseSwapped,
  storePlace,
} from '../store/store-command.ts';
import { addRequestsTo, sayRequests } from '../store/requests.ts';
import { parsePercent } from '../options/quantities.ts';
import { outputOf, remoteOptionsOf } from '../options/common-options.ts';
import { SHORT_ID_LENGTH } from './snapshots.ts';
import { CONNECTION_OPTIONS, JOB_OPTIONS, OUTPUT_OPTIONS, SYNC_OPTIONS } from '../options/options.ts';
import { ACCESS_OPTIONS, storeAccessOf } from '../store/store-password.ts';
import { defineCommand } from '../options/command.ts';
import type { Command } from '../options/command.ts';

/** `sqlsync backup ORIGIN… STORE`; returns the exit status. */
export const command: Command = defineCommand({
  name: 'backup',
  usage: '<places..>',
  describe: 'Add snapshots of databases to a store: backup ORIGIN… STORE; quoted, ORIGIN may be a pattern',
  example: 'sqlsync backup app.db /srv/store --keep-daily 7',
  summary:
    '`backups` (each with `origin`, `snapshot`, `unchanged` (true if `--skip-if-unchanged` made none), `pagesTransferred`, `pagesDelta`, `bytesSent`, `bytesReceived`, `durationMs`, `snapshotHeldMs`, `walGrowthBytes`, `verified`, `shrunk`, `warnings`), `failures` (`origin`, `code`, `message`), `copies` of `--copy-to` (`store`, `copied`, `bytesAdded`, or `code` and `message`), `groups` and `forgotten` as `forget`, `prune`',
  operands: { places: 'Databases, each a path or [user@]host:path, and last the store' },
  options: {
    tag: { array: true, value: 'TAG', describe: 'Tag of the new snapshots; may be given several times' },
    host: { value: 'NAME', describe: 'Host that the snapshots are said to be of' },
    verify: { describe: 'Restore each new snapshot to a temporary file and compare it with the origin' },
    'no-cache': {
      describe: 'Keep nothing in the cache folder; the next backup then reads old versions and all lists',
    },
    'skip-if-unchanged': {
      describe:
        'Make no snapshot of a database that has not changed since its newest one (in S3: the newest that this host made)',
    },
    'max-shrink': SYNC_OPTIONS['max-shrink'],
    'copy-to': {
      array: true,
      value: 'STORE',
      describe: 'Copy the new snapshots to this store, too; may be given several times',
    },
    prune: { describe: 'Then remove what no snapshot needs any more' },
    ...KEEP_OPTIONS,
    compress: SYNC_OPTIONS.compress,
    hash: SYNC_OPTIONS.hash,
    ...ACCESS_OPTIONS,
    ...JOB_OPTIONS,
    ...CONNECTION_OPTIONS,
    ...OUTPUT_OPTIONS,
  },
  group: STORES,
  async run(args) {
    keepYoungGenerationSmall();
    const output = outputOf(args);
    addRequestsTo(output);
    try {
      const [store, ...reversed] = args.places.toReversed();
      const given = reversed.toReversed();
      if (store === undefined || given.length === 0) {
        throw new SqlsyncError('USAGE', 'expected one database or more, and a store', {
          hint: 'sqlsync backup ORIGIN… STORE. A database named backup is ./backup.',
        });
      }
      refuseSwapped(store, given, 'sqlsync backup ORIGIN… STORE');
      const { maxTimeMs, ...remote } = remoteOptionsOf(args);
      const { host, verify, compress, hash } = args;
      const tags = [...new Set((args.tag ?? []).flatMap((list) => list.split(',')))].filter(
        (tag) => tag !== '',
      );
      const { maxShrink } = args;
      const maxShrinkPercent = maxShrink === undefined ? undefined : parsePercent('--max-shrink', maxShrink);
      const modes = { host, verify, compress, hash, maxShrinkPercent };
      const skipUnchanged = args.skipIfUnchanged;
      // What there is to say of the store is said when it is backed up to.
      const { onWarning: _, ...access } = storeAccessOf(args, store, output);
      const options = { store: storePlace(store), tags, skipUnchanged, ...modes, ...remote, ...access };
      const others = (args.copyTo ?? []).map(storePlace);
      const policy = policyOf(args);
      const groupBy = groupingOf(args);
      return await runJob({
        name: ['backup', canonicalStore(store), ...given.map(canonicalLocation)],
        expected: given.flatMap((origin) => [store, ...others].map((place) => labelsOf(origin, place))),
        options: jobOptionsOf(args, false),
        output,
        explain: (failure) => explainName('backup', failure),
        run: (interruption, copies) =>
          withMaxTime(maxTimeMs, interruption, async (signal) => {
            const done = await backUpAll({ options, output, signal, copies }, given, others);
            const { summaries } = done;
            const onward = await copyOnward({
              store,
              access: { ...access, signal },
              others,
              summaries,
              output,
              copies,
              signal,
              labelsOf,
              figuresOf: (summary) => figuresOf(summary, done.startedAtMs.get(summary.origin) ?? Date.now()),
            });
            const tidied = await tidy(
              policy === undefined ? done.summaries : keepBeforeShrunk(output, done.summaries),
              { store, access: { ...access, signal }, policy, groupBy, prune: args.prune, signal },
            );
            say(output, done, onward, tidied);
          }),
      });
    } catch (error) {
      const failure = toSqlsyncError(error);
      output.error(failure);
      return exitStatusOf(failure.code);
    } finally {
      sayRequests(output);
    }
  },
});

interface Failure {
  readonly origin: string;
  readonly error: SqlsyncError;
}

interface BackupRun {
  readonly options: Omit<BackupOptions, 'origin'>;
  readonly output: Output;
  readonly signal: AbortSignal | undefined;
  readonly copies: Copies;
}

interface Done {
  readonly summaries: readonly BackupSummary[];
  readonly failures: readonly Failure[];
  /** When the backup of each origin began, in ms since 1970. */
  readonly startedAtMs: ReadonlyMap<string, number>;
}

/** One after the other. A database that cannot be read does not stop the others; a store that cannot be used does. */
async function backUpAll(run: BackupRun, given: readonly string[], others: readonly string[]): Promise<Done> {
  const summaries: BackupSummary[] = [];
  const begun = new Map<string, number>();
  const failures: Failure[] = [];
  const { options, output, signal, copies } = run;
  // Opened first: a missing store is not the fault of the first database.
  const { password, acceptNewStore, cache } = options;
  refusePast(options.store);
  const store = await openStoreAt(options.store, { password, acceptNewStore, cache, signal });
  const host = options.host ?? hostname();
  // Only what a pattern matches has to be looked up: a list is a request.
  const snapshots = given.some(isPattern) ? await store.snapshots() : [];
  const ours = snapshots.filter((snapshot) => snapshot.host === host);
  const backedUp = new Set(ours.map(({ path }) => path));
  const origins = expandOrigins(given, {
    isBackedUp: (path) => existsSync(path) && backedUp.has(realpathSync(path)),
    onNote: (note) => output.note(note),
    onWarning: (warning) => output.warning(warning),
  });
  copies.expect(
    origins.flatMap(({ origin }) => [options.store, ...others].map((place) => labelsOf(origin, place))),
  );
  for (const { origin, error: missing } of origins) {
    const startedAt = performance.now();
    const startedAtMs = Date.now();
    begun.set(origin, startedAtMs);
    const labels = labelsOf(origin, options.store);
    try {
      if (missing !== undefined) throw missing;
      const summary = await backUp(run, origin);
      summaries.push(summary);
      const figures = figuresOf(summary, startedAtMs);
      copies.report({ labels, exitStatus: EXIT_OK, durationMs: summary.durationMs, figures });
      output.result(describe(summary));
    } catch (error) {
      const failure = explainPattern(origin, toSqlsyncError(error));
      if (endsAll(failure)) throw failure;
      const exitStatus = exitStatusOf(failure.code);
      copies.report({ labels, exitStatus, durationMs: performance.now() - startedAt, figures: undefined });
      if (origins.length === 1) throw failure;
      failures.push({ origin, error: failure });
      output.failure(origin, failure);
    }
  }
  const [first] = failures;
  if (summaries.length > 0 || first === undefined) return { summaries, failures, startedAtMs: begun };
  throw new SqlsyncError(first.error.code, `None of the ${failures.length} databases could be backed up`, {
    hint: 'The messages above say what was wrong with each.',
    cause: first.error,
  });
}

function labelsOf(origin: string, store: string): CopyLabels {
  return { command: 'backup', origin, store };
}

function endsAll({ code }: SqlsyncError): boolean {
  return code === 'INTERRUPTED' || code.startsWith('STORE_') || code === 'INTERNAL';
}

async function backUp({ options, output, signal }: BackupRun, origin: string): Promise<BackupSummary> {
  const listeners = copyListeners(output);
  try {
    return await runBackup({ ...options, origin, ...listeners, signal });
  } finally {
    listeners.end();
  }
}

function figuresOf(summary: BackupSummary, startedAtMs: number): Copy['figures'] {
  const { snapshot, bytesSent, bytesReceived, snapshotHeldMs, walGrowthBytes } = summary;
  const { pageSize, pageCount, statistics } = snapshot;
  const pagesChanged = summary.unchanged ? 0 : statistics.pagesChanged;
  const amounts = { bytesSent, bytesReceived, pageSize, pageCount, pagesChanged };
  return { snapshotAtMs: startedAtMs, snapshotHeldMs, walGrowthBytes, ...amounts };
}

/**
 * The databases whose older snapshots may be forgotten. After nearly everything was lost by accident, the user needs
 * one of the older snapshots.
 */
function keepBeforeShrunk(output: Output, summaries: readonly BackupSummary[]): BackupSummary[] {
  for (const { origin } of summaries.filter(({ shrunk }) => shrunk)) {
    output.warning(`No older snapshot of ${origin} is forgotten this time.`);
  }
  return summaries.filter(({ shrunk }) => !shrunk);
}

interface Tidied {
  readonly groups: readonly ForgetGroup[];
  readonly forgotten: readonly string[];
  readonly prune: PruneSummary | undefined;
}

/**
 * Forgets by the policy, in the groups of the databases that were just backed up: others in the store may have other
 * policies.
 */
async function tidy(
  summaries: readonly BackupSummary[],
  {
    store: folder,
    access,
    policy,
    groupBy,
    prune,
    signal,
  }: {
    readonly store: string;
    readonly access: OpenOptions;
    readonly policy: RetentionPolicy | undefined;
    readonly groupBy: Grouping | undefined;
    readonly prune: boolean;
    readonly signal: AbortSignal | undefined;
  },
): Promise<Tidied> {
  if (policy === undefined && !prune) return { groups: [], forgotten: [], prune: undefined };
  const store = await openStoreAt(folder, access);
  let groups: ForgetGroup[] = [];
  if (policy !== undefined) {
    const fresh = new Set(summaries.map(({ snapshot }) => snapshot.id));
    const all = groupSnapshots(await store.snapshots(), groupBy ?? DEFAULT_GROUPING);
    const ours = all.filter(({ members }) => members.some(({ id }) => fresh.has(id)));
    groups = planForget(
      ours.flatMap(({ members }) => members),
      policy,
      { groupBy, isUnattended: true, followed: await store.newestFollowed() },
    );
  }
  const ids = groups.flatMap(({ remove }) => remove.map(({ id }) => id));
  const { forgotten } = await store.forget(ids);
  return { groups, forgotten, prune: prune ? await store.prune({ signal }) : undefined };
}

function say(
  output: Output,
  { summaries, failures }: Done,
  onward: readonly OnwardResult[],
  { groups, forgotten, prune }: Tidied,
): void {
  if (output.options.verbosity === 'verbose' && groups.length > 0)
    output.result(describeGroups(groups, false));
  else if (forgotten.length > 0) output.result(`Forgotten: ${counted(forgotten.length, 'older snapshot')}`);
  warnOfTimes(output, groups);
  if (prune !== undefined) reportPrune(output, prune);
  if (failures.length > 0) {
    const all = summaries.length + failures.length;
    output.error(
      new SqlsyncError('BACKUP_PARTIAL', `${failures.length} of ${all} databases could not be backed up`, {
        hint: `Not backed up: ${failures.map(({ origin }) => origin).join(', ')}.`,
      }),
    );
  }
  const notCopied = onwardFailure(onward);
  if (notCopied !== undefined) output.error(notCopied);
  // Last: the run has completed, so programs get the summary, which includes the failures.
  output.json({
    type: 'summary',
    backups: summaries,
    failures: failures.map(({ origin, error }) => ({ origin, code: error.code, message: error.message })),
    ...(onward.length === 0 ? {} : { copies: onward.map(asJson) }),
    groups: groupsAsJson(groups),
    forgotten,
    ...(prune === undefined ? {} : { prune }),
  });
}

function asJson({ store, copied, bytesAdded, error }: OnwardResult): object {
  return error === undefined
    ? { store, copied, bytesAdded }
    : { store, code: error.code, message: error.message };
}

function isRemote(origin: string): boolean {
  return parseLocation(origin).kind === 'ssh';
}

function describe(summary: BackupSummary): string {
  const { origin, snapshot, bytesReceived, durationMs, verified } = summary;
  const { id, pageCount, pageSize, parent, statistics } = snapshot;
  const { pagesChanged, bytesAdded } = statistics;
  const pages =
    parent === undefined
      ? `${formatPages(pageCount)} (${formatBytes(pageCount * pageSize)})`
      : `${formatCount(pagesChanged)} of ${formatPages(pageCount)} changed`;
  // A local database sends no bytes over a network.
  const received = isRemote(origin) ? `${formatBytes(bytesReceived)} received, ` : '';
  const amounts = `${received}${formatBytes(bytesAdded)} added`;
  const checked = verified ? ', verified' : '';
  const time = formatDuration(durationMs);
  if (summary.unchanged)
    return `${origin} has not changed since its snapshot ${id.slice(0, SHORT_ID_LENGTH)}: no new one was made, ${time}${checked}`;
  return `Snapshot ${id.slice(0, SHORT_ID_LENGTH)} of ${origin}: ${pages}, ${amounts}, ${time}${checked}`;
}
