import { SqlsyncError, sanitizeText } from '../../errors.ts';
import { parseDuration } from '../options/quantities.ts';
import { reportPrune } from '../store/describe-forget.ts';
import {
  DRY_RUN,
  STORES,
  STORE_OPERAND,
  canonicalStore,
  CACHE_OPTION,
  openStoreToWrite,
  runStoreJob,
} from '../store/store-command.ts';
import { JOB_OPTIONS, OUTPUT_OPTIONS } from '../options/options.ts';
import { ACCESS_OPTIONS, storeAccessOf } from '../store/store-password.ts';
import { defineCommand } from '../options/command.ts';
import type { Command } from '../options/command.ts';

/** `sqlsync prune STORE`; returns the exit status. */
export const command: Command = defineCommand({
  name: 'prune',
  usage: '<store>',
  describe: 'Remove from a store what no snapshot needs any more',
  example: 'sqlsync prune /srv/store --dry-run',
  summary:
    '`dryRun`, `packsMarked`, `bytesMarked`, `packsRepacked`, `packsDeleted`, `bytesDeleted`, `stepsDeleted`, `packsWaiting`, `bytesWaiting`, `outOfSpace`',
  operands: { store: STORE_OPERAND },
  options: {
    'dry-run': DRY_RUN,
    'max-unused': {
      value: 'N%',
      describe:
        'Part of a pack that may be garbage before what is needed of it is copied (default 20%), or unlimited',
    },
    grace: {
      value: 'T',
      describe:
        'Grace period of this run, less than that of the store (0: delete at once); only while nothing else uses the store',
    },
    ...CACHE_OPTION,
    'lock-wait': JOB_OPTIONS['lock-wait'],
    ping: JOB_OPTIONS.ping,
    ...ACCESS_OPTIONS,
    ...OUTPUT_OPTIONS,
  },
  group: STORES,
  run: (args) =>
    runStoreJob('prune', args, {
      name: () => ['prune', canonicalStore(args.store)],
      work: async (output, options) => {
        const { dryRun, grace } = args;
        const graceSeconds = grace === undefined ? undefined : parseDuration('--grace', grace, true) / 1000;
        const maxUnusedRatio = ratioOf(args.maxUnused);
        const access = storeAccessOf(args, args.store, output, options.signal);
        const store = await openStoreToWrite(args.store, access);
        const summary = await store.prune({ dryRun, graceSeconds, maxUnusedRatio, ...options });
        output.json({ type: 'summary', ...summary });
        reportPrune(output, summary, graceSeconds);
      },
    }),
});

/** `5%` or `5`, as in restic; or `unlimited`. Throws SqlsyncError USAGE. */
function ratioOf(text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  if (text === 'unlimited') return 1;
  const percent = /^(\d{1,3}(?:\.\d+)?)%?$/.exec(text)?.[1];
  if (percent !== undefined && Number(percent) <= 100) return Number(percent) / 100;
  throw new SqlsyncError(
    'USAGE',
    `--max-unused: expected a percentage or unlimited but got "${sanitizeText(text, 100)}"`,
    { hint: 'For example 5%. Garbage below that part of a pack stays until there is more of it.' },
  );
}
