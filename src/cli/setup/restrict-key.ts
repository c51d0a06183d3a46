import { SqlsyncError } from '../../errors.ts';
import { authorize } from '../../sync/install/authorize.ts';
import type { KeyPlan } from '../../sync/install/authorize.ts';
import type { FarShellOptions } from '../../sync/install/far-shell.ts';
import { keyLine, readPublicKey } from '../../sync/install/public-key.ts';
import type { PublicKey } from '../../sync/install/public-key.ts';
import type { RestrictionOptions } from '../../sync/request/restriction.ts';
import type { Output } from '../terminal/output.ts';
import { isConfirmed } from './confirm.ts';
import type { ConfirmArguments } from './confirm.ts';

/** Options for a key that may start a restricted agent. */
export const RESTRICT_OPTIONS = {
  restrict: {
    value: 'DIR',
    describe:
      'Print the line of authorized_keys for a key that may only use databases in DIR, a folder there',
    more: 'With HOST and `--install` it writes the line. See [A key that can do no more](remote.md#a-key-that-can-do-no-more).',
  },
  key: { value: 'FILE', describe: 'The public key for --restrict, a FILE.pub' },
} as const;

export interface RestrictArguments extends ConfirmArguments {
  readonly install: boolean;
  readonly key: string | undefined;
  readonly remoteExe: string;
}

/**
 * Prints the line for a key; writes it to the host of `options` if the user wants that. Returns the fields of a summary.
 * Throws SqlsyncError.
 */
export async function restrictKey(
  args: RestrictArguments,
  restriction: RestrictionOptions,
  host: string,
  options: FarShellOptions | undefined,
  output: Output,
): Promise<Record<string, unknown>> {
  const key = keyOf(args);
  if (options === undefined) {
    const line = keyLine(key, args.remoteExe, restriction);
    print(line, output);
    return { line };
  }
  const confirm = (plan: KeyPlan): Promise<boolean> =>
    args.install ? isConfirmed(args, output, describePlan(host, plan)) : Promise.resolve(false);
  const { plan, isDone } = await authorize({ ...options, key, restriction, confirm });
  if (!args.install) print(plan.line, output);
  else if (plan.action === 'present') output.result(`${host} has that line already, in ${plan.file}`);
  else output.result(isDone ? `${host} has the line now, in ${plan.file}` : `${host} is unchanged`);
  return { ...plan, changed: isDone };
}

function keyOf({ key }: RestrictArguments): PublicKey {
  if (key !== undefined) return readPublicKey(key);
  throw new SqlsyncError('USAGE', 'setup: --restrict needs --key FILE.pub, the key that the line is for', {
    hint: "Make one without a passphrase: ssh-keygen -t ed25519 -N '' -f FILE",
  });
}

/** For pasting: as it is, however narrow the terminal. */
function print(line: string, output: Output): void {
  if (!output.options.json) process.stdout.write(`${line}\n`);
}

function describePlan(host: string, { line, file, action }: KeyPlan): string[] {
  const what = action === 'replace' ? 'Replaces the line of that key' : 'Adds a line';
  return [`${what} in ${file} on ${host}:`, `  ${line}`];
}
