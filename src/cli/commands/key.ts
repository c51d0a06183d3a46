import { formatClock } from '../../backup/snapshots/calendar-time.ts';
import type { Password } from '../../backup/keys/password.ts';
import type { Store } from '../../backup/types.ts';
import { SqlsyncError, sanitizeText } from '../../errors.ts';
import { OUTPUT_OPTIONS } from '../options/options.ts';
import { defineCommand } from '../options/command.ts';
import type { Command, Options, OptionValues } from '../options/command.ts';
import {
  STORES,
  STORE_OPERAND,
  mayKeepVersions,
  openStoreAt,
  openStoreToWrite,
  runStoreCommand,
} from '../store/store-command.ts';
import { ACCESS_OPTIONS, namedPassword, storeAccessOf, typedPassword } from '../store/store-password.ts';
import { EXIT_OK } from '../terminal/exit.ts';
import type { Output } from '../terminal/output.ts';
import { formatTable } from '../terminal/table.ts';
import { SHORT_ID_LENGTH } from './snapshots.ts';

const OPTIONS = {
  'new-password-file': { value: 'FILE', describe: 'File with the password of the new key' },
  'new-password-command': {
    value: 'COMMAND',
    describe: 'Shell command that prints the password of the new key',
  },
  ...ACCESS_OPTIONS,
  ...OUTPUT_OPTIONS,
} as const satisfies Options;

/** Said where somebody could think otherwise. */
const SAME_MASTER_KEY =
  'The master key of the store is the same as before: anyone who had read it with an old password can still read the store. For another one, copy to a new store: sqlsync init --encrypt NEW, sqlsync copy STORE NEW.';

/** What a key that is gone does not end. */
function whatStays(store: string): string {
  if (!mayKeepVersions(store)) return SAME_MASTER_KEY;
  return `If the bucket keeps versions, the old version of the key file stays, and its password opens that: delete it there, in ${store}, below keys/. ${SAME_MASTER_KEY}`;
}

/** What each word after `key` does. */
const ACTIONS: Readonly<Record<string, (store: Store, work: KeyWork) => Promise<void>>> = {
  list,
  add: async (store, { args, output, signal }) => {
    const id = await store.addKey(await newPasswordIn(args, signal));
    output.json({ type: 'summary', added: id });
    output.result(`Key ${id.slice(0, SHORT_ID_LENGTH)} added: its password opens the store, too`);
  },
  remove: async (store, { args, output }) => {
    if (args.id === undefined)
      throw new SqlsyncError('USAGE', 'The command line does not say which key to remove', {
        hint: 'sqlsync key remove STORE ID; `sqlsync key list STORE` shows the keys.',
      });
    const id = await store.removeKey(args.id);
    output.json({ type: 'summary', removed: id });
    output.result(`Key ${id.slice(0, SHORT_ID_LENGTH)} removed. ${whatStays(args.store)}`);
  },
  passwd: async (store, { args, output, signal }) => {
    const id = await store.changePassword(await newPasswordIn(args, signal));
    output.json({ type: 'summary', changed: id });
    output.result(
      `The password was changed; its key is now ${id.slice(0, SHORT_ID_LENGTH)}. ${whatStays(args.store)}`,
    );
  },
};

interface KeyWork {
  readonly args: OptionValues<typeof OPTIONS> & { readonly store: string; readonly id: string | undefined };
  readonly output: Output;
  readonly signal: AbortSignal;
}

/** `sqlsync key list|add|remove|passwd STORE [ID]`; returns the exit status. */
export const command: Command = defineCommand({
  name: 'key',
  usage: '<action> <store> [id]',
  describe:
    'List, add and remove the passwords of an encrypted store, or change one: key list|add|remove|passwd STORE',
  example: 'sqlsync key add /srv/store',
  summary:
    '`keys` (`id`, `time`, `host`, `user`, `isCurrent`) of `list`; `added`, `removed` or `changed`, the id of a key',
  operands: {
    action: 'list, add, remove, or passwd, which changes the password that opens the store',
    store: STORE_OPERAND,
    id: 'Which key to remove: its id, or how that begins',
  },
  options: OPTIONS,
  group: STORES,
  run: (args) =>
    runStoreCommand('key', args, async (output, { signal }) => {
      const action = Object.hasOwn(ACTIONS, args.action) ? ACTIONS[args.action] : undefined;
      if (action === undefined)
        throw new SqlsyncError(
          'USAGE',
          `"${sanitizeText(args.action, 80)}" is not one of ${Object.keys(ACTIONS).join(', ')}`,
          {
            hint: 'Write sqlsync key list STORE.',
          },
        );
      const open = args.action === 'list' ? openStoreAt : openStoreToWrite;
      const store = await open(args.store, storeAccessOf(args, args.store, output, signal));
      await action(store, { args, output, signal });
      return EXIT_OK;
    }),
});

async function list(store: Store, { output }: KeyWork): Promise<void> {
  const keys = await store.keys({ onWarning: (warning) => output.warning(warning) });
  output.json({ type: 'summary', keys });
  output.result(
    formatTable(keys, [
      { title: 'ID', cell: ({ id }) => id.slice(0, SHORT_ID_LENGTH) },
      { title: 'Made', cell: ({ time }) => formatClock(time) },
      { title: 'By', cell: ({ user, host }) => sanitizeText(`${user}@${host}`, 80) },
      { title: '', cell: ({ isCurrent }) => (isCurrent ? 'the password given' : '') },
    ]),
  );
}

async function newPasswordIn(args: KeyWork['args'], signal: AbortSignal): Promise<Password> {
  const { newPasswordFile: passwordFile, newPasswordCommand: passwordCommand } = args;
  const password = namedPassword({ passwordFile, passwordCommand }) ?? typedPassword('New password');
  await password.text(signal);
  return password;
}
