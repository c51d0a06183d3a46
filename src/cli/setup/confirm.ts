import { SqlsyncError } from '../../errors.ts';
import { terminalAsk } from '../../transport/terminal.ts';
import type { Output } from '../terminal/output.ts';

export interface ConfirmArguments {
  readonly yes: boolean;
  readonly dryRun: boolean;
}

/**
 * True if the user wants what `lines` say. Asks on the terminal unless --yes or --dry-run answers. Throws SqlsyncError
 * USAGE without a terminal.
 */
export async function isConfirmed(
  { yes, dryRun }: ConfirmArguments,
  output: Output,
  lines: readonly string[],
): Promise<boolean> {
  if (dryRun || !yes) output.result(lines.join('\n'));
  if (dryRun || yes) return yes && !dryRun;
  const ask = process.stdin.isTTY && process.stderr.isTTY && !output.options.json ? terminalAsk() : undefined;
  if (ask === undefined)
    throw new SqlsyncError('USAGE', 'setup asks before it changes the other host, and there is no terminal', {
      hint: 'Add --yes, or --dry-run to see what it would do.',
    });
  const answer = (await ask('Do this? [y/N] ', true)).trim().toLowerCase();
  return answer === 'y' || answer === 'yes';
}
