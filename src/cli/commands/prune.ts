import { SqlsyncError, sanitizeText } from '../../errors.ts';
import { parseDuration } from '../quantities.ts';
import { canonicalLocation } from '../job/job.ts';
import type { StoreJobArguments } from '../store/store-command.ts';
import { reportPrune } from '../store/describe-forget.ts';
import { openStoreAt, runStoreJob } from '../store/store-command.ts';

export interface PruneArguments extends StoreJobArguments {
  readonly store: string;
  readonly dryRun: boolean;
  readonly grace?: string | undefined;
  readonly maxUnused?: string | undefined;
}

/** `sqlsync prune STORE`; returns the exit status. */
export function runPruneCommand(args: PruneArguments): Promise<number> {
  return runStoreJob('prune', args, {
    name: () => ['prune', canonicalLocation(args.store)],
    work: async (output, options) => {
      const { dryRun, grace } = args;
      const graceSeconds = grace === undefined ? undefined : parseDuration('--grace', grace, true) / 1000;
      const maxUnusedRatio = ratioOf(args.maxUnused);
      const store = await openStoreAt(args.store);
      const summary = await store.prune({ dryRun, graceSeconds, maxUnusedRatio, ...options });
      output.json({ type: 'summary', ...summary });
      reportPrune(output, summary, graceSeconds);
    },
  });
}

/** `5%` or `5`, as restic has it; and `unlimited`. Throws SqlsyncError USAGE. */
function ratioOf(text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  if (text === 'unlimited') return 1;
  const percent = /^(\d{1,3}(?:\.\d+)?)%?$/.exec(text)?.[1];
  if (percent !== undefined && Number(percent) <= 100) return Number(percent) / 100;
  throw new SqlsyncError(
    'USAGE',
    `--max-unused: expected a percentage or unlimited but got "${sanitizeText(text, 100)}"`,
    { hint: 'Such as 5%. What is less than that part of a pack stays until more of it is garbage.' },
  );
}
