import { initStore } from '../../backup/store.ts';
import { parseDuration } from '../options/quantities.ts';
import { EXIT_OK } from '../terminal/exit.ts';
import { STORES, STORE_OPERAND, runStoreCommand, storePlace } from '../store/store-command.ts';
import { OUTPUT_OPTIONS } from '../options/options.ts';
import { defineCommand } from '../options/command.ts';
import type { Command } from '../options/command.ts';

/** `sqlsync init STORE`; returns the exit status. */
export const command: Command = defineCommand({
  name: 'init',
  usage: '<store>',
  describe: 'Make an empty backup store: a folder, sftp:[USER@]HOST:PATH, or s3:…',
  example: 'sqlsync init /srv/store',
  summary: '`store`, `id`',
  operands: { store: STORE_OPERAND },
  options: {
    grace: {
      value: 'T',
      describe:
        'How long prune leaves alone what a running backup may need (default 12h); a backup should take less than half of it',
    },
    ...OUTPUT_OPTIONS,
  },
  group: STORES,
  run: (args) =>
    runStoreCommand('init', args, async (output) => {
      const { grace } = args;
      const graceSeconds = grace === undefined ? undefined : parseDuration('--grace', grace, true) / 1000;
      const store = await initStore(storePlace(args.store), {
        graceSeconds,
        onWarning: (warning) => output.warning(warning),
      });
      output.json({ type: 'summary', store: args.store, id: store.id });
      output.result(`${args.store} is now a backup store, with the id ${store.id}`);
      return EXIT_OK;
    }),
});
