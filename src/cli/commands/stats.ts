import { EXIT_OK } from '../exit.ts';
import { counted, formatBytes } from '../format.ts';
import { openStoreAt, runStoreCommand } from '../store/store-command.ts';
import type { OutputArguments } from './common-options.ts';

export interface StatsArguments extends OutputArguments {
  readonly store: string;
}

/** `sqlsync stats STORE`; returns the exit status. */
export function runStatsCommand(args: StatsArguments): Promise<number> {
  return runStoreCommand('stats', args, async (output, options) => {
    const store = await openStoreAt(args.store);
    const stats = await store.stats(options);
    output.json({ type: 'summary', ...stats });
    const { snapshots, databases, rawBytes, uniqueBytes, storedBytes, packs, objects, ratio } = stats;
    output.result(
      [
        `${counted(snapshots, 'snapshot')} of ${counted(databases, 'database')}`,
        `  raw       ${formatBytes(rawBytes)}, if each were a file`,
        `  unique    ${formatBytes(uniqueBytes)} of different pages`,
        `  stored    ${formatBytes(storedBytes)} in ${counted(packs, 'pack')} with ${counted(objects, 'object')}`,
        ...(rawBytes === 0 ? [] : [`  ratio     ${ratio.toFixed(1)} raw bytes for each stored one`]),
      ].join('\n'),
    );
    return EXIT_OK;
  });
}
