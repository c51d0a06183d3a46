import { AGENT_OPTIONS, COMMON_OPTIONS, JOB_OPTIONS, SYNC_OPTIONS, VERIFY_OPTIONS } from './options.ts';
import type { KnownOption } from './options.ts';
import { STORE_OPTIONS, optionsOfStoreCommand } from './store-options.ts';

const ALWAYS: Readonly<Record<string, KnownOption>> = {
  help: { alias: 'h', type: 'boolean' },
  version: { type: 'boolean' },
};

/** By their names without dashes. */
export function optionsOfCommand(command: string): Readonly<Record<string, KnownOption>> {
  if (command === 'sync') return { ...SYNC_OPTIONS, ...JOB_OPTIONS, ...COMMON_OPTIONS, ...ALWAYS };
  if (command === 'agent') return { ...AGENT_OPTIONS, ...ALWAYS };
  if (command === 'verify')
    return { ...VERIFY_OPTIONS, ping: JOB_OPTIONS.ping, ...COMMON_OPTIONS, ...ALWAYS };
  if (command === 'setup') return { ...COMMON_OPTIONS, ...ALWAYS };
  return { ...optionsOfStoreCommand(command), ...ALWAYS };
}

/** Those of all commands: an option has the same type wherever there is one of its name. */
export function allOptions(): Readonly<Record<string, KnownOption>> {
  const ofStores = Object.values(STORE_OPTIONS) as Readonly<Record<string, KnownOption>>[];
  return Object.assign({}, AGENT_OPTIONS, ...ofStores, optionsOfCommand('sync')) as Record<
    string,
    KnownOption
  >;
}
