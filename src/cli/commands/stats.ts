import { EXIT_OK } from '../terminal/exit.ts';
import { counted, formatBytes } from '../terminal/format.ts';
import {
  AT_OPTION,
  CACHE_OPTION,
  STORES,
  STORE_OPERAND,
  atTime,
  openStoreAt,
  runStoreCommand,
} from '../store/store-command.ts';
import { OUTPUT_OPTIONS } from '../options/options.ts';
import { ACCESS_OPTIONS, storeAccessOf } from '../store/store-password.ts';
import { defineCommand } from '../options/command.ts';
import type { Command } from '../options/command.ts';

/** `sqlsync stats STORE`; returns the exit status. */
export const command: Command = defineCommand({
  name: 'stats',
  usage: '<store>',
  describe: 'Say how large a store is, and what it saves',
  example: 'sqlsync stats /srv/store',
  summary: '`snapshots`, `databases`, `rawBytes`, `uniqueBytes`, `storedBytes`, `packs`, `objects`, `ratio`',
  operands: { store: STORE_OPERAND },
  options: {
    ...AT_OPTION,
    ...CACHE_OPTION,
    ...ACCESS_OPTIONS,
    ...OUTPUT_OPTIONS,
  },
  group: STORES,
  run: (args) =>
    runStoreCommand('stats', args, async (output, options) => {
      const access = storeAccessOf(args, args.store, output, options.signal);
      const store = await openStoreAt(atTime(args.store, args.at), access);
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
    }),
});
