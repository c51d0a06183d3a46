import type { OpenOptions } from '../../backup/files/access.ts';
import type { Password } from '../../backup/keys/password.ts';
import type { CopySummary, StoreSnapshot } from '../../backup/types.ts';
import { SqlsyncError } from '../../errors.ts';
import { JOB_OPTIONS, OUTPUT_OPTIONS } from '../options/options.ts';
import { defineCommand } from '../options/command.ts';
import type { Command, OptionValues } from '../options/command.ts';
import { ACCESS_OPTIONS, askedPassword, namedPassword, storeAccessOf } from '../store/store-password.ts';
import { DATABASE_OPTIONS, TAG_OPTIONS, filterSnapshots } from '../store/snapshot-choice.ts';
import {
  AT_OPTION,
  CACHE_OPTION,
  DRY_RUN,
  STORES,
  atTime,
  canonicalStore,
  openStoreAt,
  openStoreToWrite,
  runStoreJob,
} from '../store/store-command.ts';
import { counted, formatBytes } from '../terminal/format.ts';
import { formatTable } from '../terminal/table.ts';
import { SHORT_ID_LENGTH, SNAPSHOT_COLUMNS } from './snapshots.ts';

const FROM_OPTIONS = {
  'from-password-file': { value: 'FILE', describe: 'The same for the store that has the snapshots' },
  'from-password-command': { value: 'COMMAND', describe: 'The same for the store that has the snapshots' },
} as const;

/** `sqlsync copy STORE STORE [ID…]`; returns the exit status. */
export const command: Command = defineCommand({
  name: 'copy',
  usage: '<from> <to> [ids..]',
  describe: 'Copy snapshots from one store to another: all, or some',
  example: 'sqlsync copy /srv/store /srv/usb/store',
  summary:
    '`dryRun`, `copied` (`from`, a snapshot, and `to`, the id of its copy), `skipped` (snapshots that were there), `bytesAdded`',
  operands: {
    from: 'The store that has the snapshots',
    to: 'The store that gets them',
    ids: 'Ids of snapshots, or how they begin; without any, all that the options choose',
  },
  options: {
    'dry-run': DRY_RUN,
    plain: {
      describe: 'Copy from an encrypted store to one that is not: everybody who has its files can read them',
    },
    ...DATABASE_OPTIONS,
    ...TAG_OPTIONS,
    ...AT_OPTION,
    ...CACHE_OPTION,
    ...FROM_OPTIONS,
    ...ACCESS_OPTIONS,
    'lock-wait': JOB_OPTIONS['lock-wait'],
    ping: JOB_OPTIONS.ping,
    ...OUTPUT_OPTIONS,
  },
  group: STORES,
  run: (args) =>
    runStoreJob('copy', args, {
      name: () => ['copy', canonicalStore(args.from), canonicalStore(args.to)],
      async work(output, options) {
        const access = storeAccessOf(args, args.to, output, options.signal);
        const from = await openStoreAt(atTime(args.from, args.at), sourceAccessOf(args, access));
        const to = await openStoreToWrite(args.to, access);
        const { host, path, tag, ids, dryRun, plain } = args;
        const isFiltered = [host, path, tag].some((each) => each !== undefined);
        if (isFiltered && ids !== undefined && ids.length > 0) {
          throw new SqlsyncError('USAGE', 'Ids and the options that choose snapshots exclude each other', {
            hint: 'Give either ids, or --host, --path and --tag.',
          });
        }
        const chosen = isFiltered ? filterSnapshots(await from.snapshots(), args).map(({ id }) => id) : ids;
        const isAll = chosen === undefined || (chosen.length === 0 && !isFiltered);
        const onWarning = (warning: string): void => output.warning(warning);
        const summary = await from.copyTo(to, {
          ...options,
          dryRun,
          plain,
          onWarning,
          ids: isAll ? undefined : chosen,
        });
        output.json({ type: 'summary', ...summary });
        output.result(describe(summary));
      },
    }),
});

/** The source has the password of the other store if none is given for it, but then it need not be encrypted. */
function sourceAccessOf(
  {
    from,
    fromPasswordFile: passwordFile,
    fromPasswordCommand: passwordCommand,
  }: OptionValues<typeof FROM_OPTIONS> & { readonly from: string },
  to: OpenOptions & { readonly password: Password | undefined },
): OpenOptions {
  const own = namedPassword({ passwordFile, passwordCommand });
  const usual = to.password?.isGiven === true ? to.password.unlessNeeded() : askedPassword(from);
  return { ...to, password: own ?? usual };
}

function describe({ copied, skipped, bytesAdded, dryRun }: CopySummary): string {
  const there = skipped.length === 0 ? '' : `; ${counted(skipped.length, 'snapshot')} there already`;
  if (copied.length === 0) return skipped.length === 0 ? 'No snapshots' : `Nothing to copy${there}`;
  const [id, ...others] = SNAPSHOT_COLUMNS;
  const table = formatTable(copied, [
    { title: id?.title ?? '', cell: ({ from }) => from.id.slice(0, SHORT_ID_LENGTH) },
    ...others.map(({ title, cell }) => ({ title, cell: ({ from }: { from: StoreSnapshot }) => cell(from) })),
    { title: 'copy', cell: ({ to }) => to?.slice(0, SHORT_ID_LENGTH) ?? 'would be copied' },
  ]);
  if (dryRun) return `${table}\n${counted(copied.length, 'snapshot')} would be copied${there}`;
  return `${table}\n${counted(copied.length, 'snapshot')} copied, ${formatBytes(bytesAdded)} added${there}`;
}
