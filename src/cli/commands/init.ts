import { isElsewhere } from '../../backup/backends/elsewhere.ts';
import { initStore } from '../../backup/store.ts';
import { parseDuration } from '../options/quantities.ts';
import { SqlsyncError } from '../../errors.ts';
import { terminalAsk } from '../../transport/terminal.ts';
import type { Output } from '../terminal/output.ts';
import { EXIT_OK } from '../terminal/exit.ts';
import { STORES, STORE_OPERAND, runStoreCommand, storePlace } from '../store/store-command.ts';
import { OUTPUT_OPTIONS } from '../options/options.ts';
import { PASSWORD_OPTIONS, givenPassword, typedPassword } from '../store/store-password.ts';
import type { PasswordArguments } from '../store/store-password.ts';
import { defineCommand } from '../options/command.ts';
import type { Command } from '../options/command.ts';

/** `sqlsync init STORE`; returns the exit status. */
export const command: Command = defineCommand({
  name: 'init',
  usage: '<store>',
  describe: 'Make an empty backup store: a folder, [USER@]HOST:PATH, sftp:[USER@]HOST:PATH, or s3:…',
  example: 'sqlsync init /srv/store',
  summary: '`store`, `id`, `encrypted`',
  operands: { store: STORE_OPERAND },
  options: {
    grace: {
      value: 'T',
      describe:
        'How long prune leaves alone what a running backup may need (default 12h); a backup should take less than half of it',
    },
    encrypt: { describe: 'Encrypt everything in the store, with a password' },
    plain: {
      describe:
        'Do not encrypt it: for a store elsewhere, say so; anyone who has its files can read the databases',
    },
    ...PASSWORD_OPTIONS,
    ...OUTPUT_OPTIONS,
  },
  group: STORES,
  run: (args) =>
    runStoreCommand('init', args, async (output, { signal }) => {
      const { grace } = args;
      const graceSeconds = grace === undefined ? undefined : parseDuration('--grace', grace, true) / 1000;
      const store = await initStore(storePlace(args.store), {
        graceSeconds,
        plain: args.plain,
        password: (await isEncrypted(args, output))
          ? (givenPassword(args) ?? typedPassword('Password of the new store'))
          : undefined,
        signal,
        onWarning: (warning) => output.warning(warning),
      });
      output.json({ type: 'summary', store: args.store, id: store.id, encrypted: store.isEncrypted });
      const what = store.isEncrypted ? 'an encrypted backup store' : 'a backup store';
      output.result(`${args.store} is now ${what}, with the id ${store.id}`);
      if (store.isEncrypted)
        output.result('Keep the password elsewhere too: without it nobody can read the backups.');
      return EXIT_OK;
    }),
});

interface EncryptionArguments extends PasswordArguments {
  readonly store: string;
  readonly encrypt: boolean;
  readonly plain: boolean;
}

/**
 * Whether to encrypt a new store. For one elsewhere the user is asked on a terminal; a script that says nothing gets a
 * store that is not encrypted, as before, and a warning. Throws SqlsyncError USAGE.
 */
async function isEncrypted(args: EncryptionArguments, output: Output): Promise<boolean> {
  const { store, encrypt, plain } = args;
  if (encrypt && plain)
    throw new SqlsyncError('USAGE', '--encrypt and --plain exclude each other', {
      hint: 'Give one of them.',
    });
  const hasPassword = givenPassword(args) !== undefined;
  if (hasPassword && !encrypt)
    throw new SqlsyncError(
      'USAGE',
      `A password was given, but not --encrypt; the store would not be encrypted`,
      {
        hint: 'Add --encrypt, or leave out the password (also SQLSYNC_PASSWORD_FILE).',
      },
    );
  if (encrypt || plain || !isElsewhere(store)) return encrypt;
  const ask = process.stdin.isTTY && process.stderr.isTTY && !output.options.json ? terminalAsk() : undefined;
  if (ask === undefined) {
    output.warning(
      `The store ${store} is not encrypted: anyone who can read its files there can read the databases. --encrypt encrypts a new store, --plain says that this is meant`,
    );
    return false;
  }
  const answer = (
    await ask('Encrypt the store (yes), or let its place read the databases (plain)? ', true)
  ).trim();
  if (answer === 'plain') return false;
  if (['', 'y', 'yes'].includes(answer.toLowerCase())) return true;
  throw new SqlsyncError('USAGE', 'The answer was neither yes nor plain', { hint: 'Run sqlsync again.' });
}
