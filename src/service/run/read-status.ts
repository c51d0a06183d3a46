import { SqlsyncError, sanitizeLine } from '../../errors.ts';
import { stateFolderIn } from '../config/state-folder.ts';
import { askStatus } from './control-socket.ts';
import { judgeState } from '../state/judge.ts';
import type { Status } from '../state/judge.ts';
import { loadState } from '../state/state.ts';

/**
 * The status of the service of a configuration: what it says itself, else what its file says.
 *
 * @throws {SqlsyncError} CONFIG_INVALID if there is no such file, or no service has run with it.
 */
export async function readStatus(config: string): Promise<Status> {
  const folder = stateFolderIn(config);
  const answer = await askStatus(folder);
  if (typeof answer !== 'string') return answer;
  const state = loadState(folder);
  if (state !== undefined) return judgeState(state, answer, Date.now());
  throw new SqlsyncError(
    'CONFIG_INVALID',
    `No service has run with the configuration ${sanitizeLine(config)} yet`,
    {
      hint: 'Start one with `sqlsync run`, as this user, or name another file with -c FILE.',
    },
  );
}
