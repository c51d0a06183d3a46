import { planForget } from '../../backup/prune/plan-forget.ts';
import type { StoreCallOptions, StoreSnapshot } from '../../backup/types.ts';
import { SqlsyncError, sanitizeText } from '../../errors.ts';
import type { Output } from '../terminal/output.ts';
import { describeGroups, groupsAsJson, reportPrune, warnOfTimes } from '../store/describe-forget.ts';
import { KEEP_OPTIONS, groupingOf, policyOf } from '../store/keep-policy.ts';
import { DATABASE_OPTIONS, TAG_OPTIONS, chooseSnapshot, filterSnapshots } from '../store/snapshot-choice.ts';
import {
  DRY_RUN,
  STORES,
  STORE_OPERAND,
  canonicalStore,
  CACHE_OPTION,
  openStoreToWrite,
  runStoreJob,
} from '../store/store-command.ts';
import { formatTable } from '../terminal/table.ts';
import { SHORT_ID_LENGTH, SNAPSHOT_COLUMNS } from './snapshots.ts';
import { JOB_OPTIONS, OUTPUT_OPTIONS } from '../options/options.ts';
import { ACCESS_OPTIONS, storeAccessOf } from '../store/store-password.ts';
import { defineCommand } from '../options/command.ts';
import type { ArgumentsOf, Command, Options } from '../options/command.ts';

const OPTIONS = {
  'dry-run': DRY_RUN,
  prune: { describe: 'Then remove what no snapshot needs any more' },
  ...KEEP_OPTIONS,
  ...DATABASE_OPTIONS,
  ...TAG_OPTIONS,
  ...CACHE_OPTION,
  'lock-wait': JOB_OPTIONS['lock-wait'],
  ping: JOB_OPTIONS.ping,
  ...ACCESS_OPTIONS,
  ...OUTPUT_OPTIONS,
} as const satisfies Options;

type Arguments = ArgumentsOf<'<store> [ids..]', typeof OPTIONS>;

/** `sqlsync forget STORE [ID…] --keep-…`; returns the exit status. */
function run(args: Arguments): Promise<number> {
  return runStoreJob('forget', args, {
    name: () => ['forget', canonicalStore(args.store)],
    work: (output, options) => forget(args, output, options),
  });
}

async function forget(args: Arguments, output: Output, options: StoreCallOptions): Promise<void> {
  const policy = policyOf(args);
  const ids = args.ids ?? [];
  if ((policy === undefined) === (ids.length === 0)) {
    throw new SqlsyncError(
      'USAGE',
      policy === undefined
        ? 'The command line does not say what to forget: it has neither a policy nor an id'
        : 'A policy and ids exclude each other',
      { hint: 'Give --keep-daily 7 and the like, or ids of `sqlsync snapshots STORE`.' },
    );
  }
  const store = await openStoreToWrite(args.store, storeAccessOf(args, args.store, output, options.signal));
  const unreadable: string[] = [];
  const all = await store.snapshots({
    onWarning: (warning) => output.warning(warning),
    onUnreadable: (id) => unreadable.push(id),
  });
  const groups =
    policy === undefined
      ? undefined
      : planForget(filterSnapshots(all, args), policy, {
          groupBy: groupingOf(args),
          followed: await store.newestFollowed(),
        });
  const chosen = ids.map((id) => chooseById(all, unreadable, id));
  const named = [...new Map(chosen.map((each) => [each.id, each])).values()];
  const doomed = groups?.flatMap(({ remove }) => remove.map(({ id }) => id)) ?? named.map(({ id }) => id);
  const { forgotten } = args.dryRun ? { forgotten: [] } : await store.forget(doomed);
  const prune = args.prune ? await store.prune({ dryRun: args.dryRun, ...options }) : undefined;
  output.json({
    type: 'summary',
    dryRun: args.dryRun,
    groups: groups === undefined ? [] : groupsAsJson(groups),
    forgotten,
    ...(prune === undefined ? {} : { prune }),
  });
  output.result(
    groups === undefined
      ? describeNamed(named, args.dryRun)
      : describeGroups(groups, args.dryRun) || 'No snapshots',
  );
  warnOfTimes(output, groups ?? []);
  if (prune !== undefined) reportPrune(output, prune);
}

/** A snapshot named by an id; without its record if that cannot be read. */
interface NamedSnapshot {
  readonly id: string;
  readonly snapshot: StoreSnapshot | undefined;
}

/** By id only: `latest`, or a time, is too vague to delete a snapshot. */
function chooseById(all: readonly StoreSnapshot[], unreadable: readonly string[], id: string): NamedSnapshot {
  if (!/^[0-9a-f]{4,64}$/i.test(id)) {
    throw new SqlsyncError('USAGE', `"${sanitizeText(id, 100)}" is not the id of a snapshot`, {
      hint: 'Give at least the first four digits that `sqlsync snapshots STORE` shows.',
    });
  }
  const damaged = unreadable.filter((each) => each.startsWith(id.toLowerCase()));
  if (damaged[0] === undefined) {
    const snapshot = chooseSnapshot(all, id);
    return { id: snapshot.id, snapshot };
  }
  const others = all.filter((each) => each.id.startsWith(id.toLowerCase()));
  if (damaged.length + others.length === 1) return { id: damaged[0], snapshot: undefined };
  throw new SqlsyncError(
    'SNAPSHOT_NOT_FOUND',
    `${damaged.length + others.length} snapshots in the store have ids that begin with ${id}`,
    { hint: 'Give more digits.' },
  );
}

function describeNamed(named: readonly NamedSnapshot[], dryRun: boolean): string {
  const [id, ...others] = SNAPSHOT_COLUMNS;
  return formatTable(named, [
    { title: id?.title ?? '', cell: (each: NamedSnapshot) => each.id.slice(0, SHORT_ID_LENGTH) },
    ...others.map(({ title, cell }) => ({
      title,
      cell: ({ snapshot }: NamedSnapshot) => (snapshot === undefined ? '?' : cell(snapshot)),
    })),
    { title: '', cell: () => (dryRun ? 'would be removed' : 'removed') },
  ]);
}

export const command: Command = defineCommand({
  name: 'forget',
  usage: '<store> [ids..]',
  describe: 'Take snapshots away, by a policy or by their ids',
  example: 'sqlsync forget /srv/store --keep-daily 7 --prune',
  summary:
    '`dryRun`, `groups` (`host`, `path`, `tags`, as far as they are grouped by these; `keep` with `reasons`, `remove`; each with `id`, `time`, `tags`), `forgotten` (ids), `prune`',
  operands: { store: STORE_OPERAND, ids: 'Ids of snapshots, or how they begin' },
  options: OPTIONS,
  group: STORES,
  run,
});
