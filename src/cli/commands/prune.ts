import { EXIT_OK } from '../exit.ts';
import { describePrune } from '../store/describe-forget.ts';
import { openStoreAt, runStoreCommand } from '../store/store-command.ts';
import type { OutputArguments } from './common-options.ts';

export interface PruneArguments extends OutputArguments {
  readonly store: string;
  readonly dryRun: boolean;
}

/** `sqlsync prune STORE`; returns the exit status. */
export function runPruneCommand(args: PruneArguments): Promise<number> {
  return runStoreCommand('prune', args, async (output, options) => {
    const store = await openStoreAt(args.store);
    const summary = await store.prune({ dryRun: args.dryRun, ...options });
    output.json({ type: 'summary', ...summary });
    output.result(describePrune(summary));
    return EXIT_OK;
  });
}
