import { initStore } from '../../backup/store.ts';
import { parseDuration } from '../quantities.ts';
import { EXIT_OK } from '../exit.ts';
import { runStoreCommand, storeFolder } from '../store/store-command.ts';
import type { OutputArguments } from './common-options.ts';

export interface InitArguments extends OutputArguments {
  readonly store: string;
  readonly grace?: string | undefined;
}

/** `sqlsync init STORE`; returns the exit status. */
export function runInitCommand(args: InitArguments): Promise<number> {
  return runStoreCommand('init', args, async (output) => {
    const { grace } = args;
    const graceSeconds = grace === undefined ? undefined : parseDuration('--grace', grace, true) / 1000;
    const store = await initStore(storeFolder(args.store), { graceSeconds });
    output.json({ type: 'summary', store: args.store, id: store.id });
    output.result(`${args.store} is now a backup store, with the id ${store.id}`);
    return EXIT_OK;
  });
}
