import { planForget } from '../../backup/plan-forget.ts';
import type { StoreSnapshot } from '../../backup/types.ts';
import { SqlsyncError, sanitizeText } from '../../errors.ts';
import { EXIT_OK } from '../exit.ts';
import { describeGroups, describePrune, groupsAsJson } from '../store/describe-forget.ts';
import { policyOf } from '../store/keep-policy.ts';
import type { KeepArguments } from '../store/keep-policy.ts';
import { chooseSnapshot, filterSnapshots } from '../store/snapshot-choice.ts';
import type { FilterArguments } from '../store/snapshot-choice.ts';
import { openStoreAt, runStoreCommand } from '../store/store-command.ts';
import { formatTable } from '../table.ts';
import type { OutputArguments } from './common-options.ts';
import { SNAPSHOT_COLUMNS } from './snapshots.ts';

export interface ForgetArguments extends OutputArguments, KeepArguments, FilterArguments {
  readonly store: string;
  readonly ids?: string[] | undefined;
  readonly dryRun: boolean;
  readonly prune: boolean;
}

/** `sqlsync forget STORE [ID…] --keep-…`; returns the exit status. */
export function runForgetCommand(args: ForgetArguments): Promise<number> {
  return runStoreCommand('forget', args, async (output, options) => {
    const policy = policyOf(args);
    const ids = args.ids ?? [];
    if ((policy === undefined) === (ids.length === 0)) {
      throw new SqlsyncError(
        'USAGE',
        policy === undefined
          ? 'Nothing says what to forget: there is neither a policy nor an id'
          : 'A policy and ids exclude each other',
        { hint: 'Give --keep-daily 7 and the like, or ids of `sqlsync snapshots STORE`.' },
      );
    }
    const store = await openStoreAt(args.store);
    const all = await store.snapshots({ onWarning: (warning) => output.warning(warning) });
    const groups = policy === undefined ? undefined : planForget(filterSnapshots(all, args), policy);
    const named = [...new Set(ids.map((id) => chooseById(all, id)))];
    const doomed = groups?.flatMap(({ remove }) => remove) ?? named;
    const { forgotten } = args.dryRun ? { forgotten: [] } : await store.forget(doomed.map(({ id }) => id));
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
    if (prune !== undefined) output.result(describePrune(prune));
    return EXIT_OK;
  });
}

/** By id alone: `latest`, or a time, is too little to lose a snapshot by. */
function chooseById(all: readonly StoreSnapshot[], id: string): StoreSnapshot {
  if (/^[0-9a-f]{4,64}$/i.test(id)) return chooseSnapshot(all, id);
  throw new SqlsyncError('USAGE', `"${sanitizeText(id, 100)}" is no id of a snapshot`, {
    hint: 'Give at least the first four digits that `sqlsync snapshots STORE` shows.',
  });
}

function describeNamed(named: readonly StoreSnapshot[], dryRun: boolean): string {
  return formatTable(named, [
    ...SNAPSHOT_COLUMNS,
    { title: '', cell: () => (dryRun ? 'would be removed' : 'removed') },
  ]);
}
