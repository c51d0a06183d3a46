import { SqlsyncError, sanitizeText } from '../../errors.ts';
import { DEFAULT_REMOTE_EXE, INSTALLED_EXE } from '../link/start-agent.ts';
import type { RestrictionOptions } from '../request/restriction.ts';
import { orInterrupted } from '../runs/conversation.ts';
import type { FarShellOptions } from './far-shell.ts';
import { withFarShell } from './far-shell.ts';
import { PRELUDE } from './far-scripts.ts';
import { surveyInstalled } from './installed.ts';
import { lookForKey, writeKey } from './key-scripts.ts';
import { keyLine } from './public-key.ts';
import type { PublicKey } from './public-key.ts';

/** What is to become of a line of authorized_keys. */
export interface KeyPlan {
  readonly line: string;
  /** The file on the other host, every link resolved. Safe to show. */
  readonly file: string;
  /** `present` if the file has the line. */
  readonly action: 'add' | 'replace' | 'present';
}

export interface AuthorizeOptions extends FarShellOptions {
  readonly key: PublicKey;
  readonly restriction: RestrictionOptions;
  /** Resolves with true if the file may be changed. */
  readonly confirm: (plan: KeyPlan) => Promise<boolean>;
}

/**
 * Lets `key` start a restricted agent by the login of `location`, and do nothing else. The file keeps its other lines,
 * its mode and its owner. Throws SqlsyncError: REMOTE_EXE_NOT_FOUND if sqlsync is not there, RESTRICTED if the folder is
 * not, or if another line gives the key other rights.
 */
export async function authorize(options: AuthorizeOptions): Promise<{ plan: KeyPlan; isDone: boolean }> {
  const { key, restriction, confirm, signal } = options;
  return orInterrupted(signal, () =>
    withFarShell(options, PRELUDE, async (shell) => {
      const there = await surveyInstalled(shell);
      const line = keyLine(key, exeFor(options, there), restriction);
      const found = await shell.run(lookForKey(key.blob, line, restriction.folder));
      const file = found.one('file');
      const numbers = (name: string): number[] => found.all(name).map(Number);
      const [present, same, ours] = ['with', 'same', 'ours'].map(numbers) as [number[], number[], number[]];
      const other = present.find((at) => !same.includes(at) && !ours.includes(at));
      if (other !== undefined) throw hasOtherRights(file, other);
      const [at = 0] = present;
      const action = at === 0 ? 'add' : same.includes(at) ? 'present' : 'replace';
      const plan: KeyPlan = { line, file, action };
      if (found.one('folder') === '') throw lacksFolder(restriction.folder);
      if (action === 'present' || !(await confirm(plan))) return { plan, isDone: false };
      await shell.run(writeKey(line, at, found.one('sum')));
      return { plan, isDone: true };
    }),
  );
}

/** How the forced command names sqlsync. Throws SqlsyncError REMOTE_EXE_NOT_FOUND. */
function exeFor(
  { remoteExe = DEFAULT_REMOTE_EXE, location }: AuthorizeOptions,
  there: { readonly onPath: string; readonly current: string },
): string {
  if (remoteExe !== DEFAULT_REMOTE_EXE || there.onPath !== '') return remoteExe;
  if (there.current !== '') return INSTALLED_EXE;
  throw new SqlsyncError(
    'REMOTE_EXE_NOT_FOUND',
    'The login has no sqlsync on its PATH, and none is installed',
    {
      hint: `Install it first (sqlsync setup --install ${sanitizeText(location.host, 200)}), or name it: --remote-exe.`,
    },
  );
}

function hasOtherRights(file: string, at: number): SqlsyncError {
  return new SqlsyncError('RESTRICTED', `Line ${at} of ${file} there gives that key other rights already`, {
    hint: 'Make a key for this purpose alone, or remove that line: sshd takes the first that fits.',
  });
}

function lacksFolder(folder: string): SqlsyncError {
  return new SqlsyncError('RESTRICTED', `There is no folder ${sanitizeText(folder, 300)} on the other host`, {
    hint: 'Make it there first. A relative path begins in the home folder.',
  });
}
