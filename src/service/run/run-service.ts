import { join } from 'node:path';
import { SqlsyncError, sanitizeLine, toSqlsyncError } from '../../errors.ts';
import { sharingOf } from '../../files/ownership.ts';
import { makePrivateFolder } from '../../files/user-cache.ts';
import { tryExclusiveLock } from '../../sqlite/locks/exclusive-lock.ts';
import { readConfig } from '../config/read-config.ts';
import { stateFolder } from '../state/state.ts';
import { killAll } from '../jobs/run-command.ts';
import { serveStatus } from './control-socket.ts';
import type { StatusServer } from './control-socket.ts';
import { openNotifier } from './notify.ts';
import { Service } from './service.ts';
import type { ServiceListeners } from './service.ts';

export interface RunOptions {
  readonly config: string;
  /** Opens what else shows the status; it is closed at the end. Rejects if it cannot. */
  readonly listen: ((service: Service) => Promise<StatusServer>) | undefined;
  readonly listeners: ServiceListeners & {
    onStarted(targets: number): void;
    onReloaded(targets: number): void;
    onReloadFailed(failure: SqlsyncError): void;
  };
}

/**
 * Runs the service until SIGTERM, SIGINT or the like; a second one of the same kind ends the process at once. SIGHUP
 * reads the configuration again. Resolves when all that was under way has ended.
 *
 * @throws {SqlsyncError} CONFIG_INVALID; LOCKED if another service runs with this configuration. Nothing was started.
 */
export async function runService({ config: path, listen, listeners }: RunOptions): Promise<void> {
  const config = readConfig(path);
  const folder = stateFolder(config.file, config.stateFolder);
  makePrivateFolder(folder);
  refuseShared(folder);
  const lock = tryExclusiveLock(join(folder, 'lock'));
  if (lock === undefined)
    throw new SqlsyncError('LOCKED', 'Another service runs with this configuration; this one did nothing', {
      hint: '`sqlsync status` shows what it does. It takes a changed file when it gets SIGHUP.',
    });
  const warn = (text: string): void => listeners.onWarning(text);
  const servers: StatusServer[] = [];
  const notifier = openNotifier(process.env, warn);
  const { promise: asked, resolve: end } = Promise.withResolvers<void>();
  const service = new Service(config, folder, listeners);
  // One after another: systemd may send the next while the last is read.
  let reloads = Promise.resolve();
  const reload = (): void => {
    reloads = reloads.then(() => reloadService(service, path, folder, notifier, listeners));
  };
  const ends = ['SIGTERM', 'SIGINT'] as const;
  try {
    servers.push(await serveStatus(folder, () => service.status, warn));
    if (listen !== undefined) servers.push(await listen(service));
    process.on('SIGHUP', reload);
    for (const name of ends)
      process.once(name, () => {
        process.on(name, () => endAtOnce(name));
        end();
      });
    service.start();
    listeners.onStarted(service.size);
    void notifier.ready(`${service.size} targets`);
    await asked;
    process.removeListener('SIGHUP', reload);
    // A reload that comes now must not end the process in the middle of its end.
    process.on('SIGHUP', () => {});
    await reloads;
    await Promise.all([notifier.stopping(), service.stop()]);
  } finally {
    notifier.close();
    await Promise.all(servers.map((server) => server.close()));
    lock.release();
  }
}

/** As process 1 of a container it has no default action for signals. */
function endAtOnce(name: 'SIGTERM' | 'SIGINT'): void {
  killAll();
  process.exit(128 + (name === 'SIGTERM' ? 15 : 2));
}

/** Another user could put a socket or a state of theirs in the place of this service's. Throws CONFIG_INVALID. */
function refuseShared(folder: string): void {
  const { byOwner, byMode } = sharingOf(folder);
  if (!byOwner && !byMode) return;
  throw new SqlsyncError('CONFIG_INVALID', `Other users can write the state folder ${sanitizeLine(folder)}`, {
    hint: `Make it this user's own: chmod 700 ${sanitizeLine(folder)}`,
  });
}

/** Never rejects. */
async function reloadService(
  service: Service,
  path: string,
  folder: string,
  notifier: ReturnType<typeof openNotifier>,
  listeners: RunOptions['listeners'],
): Promise<void> {
  await notifier.reloading();
  try {
    const config = readConfig(path);
    if (stateFolder(config.file, config.stateFolder) !== folder)
      throw new SqlsyncError(
        'CONFIG_INVALID',
        'The file names another state folder; a reload cannot change it',
        {
          hint: 'Restart the service.',
        },
      );
    service.reload(config);
    listeners.onReloaded(service.size);
    await notifier.ready(`${service.size} targets`);
  } catch (error) {
    const failure = toSqlsyncError(error);
    service.states.reloadFailed(failure, Date.now());
    listeners.onReloadFailed(failure);
    await notifier.ready(`${service.size} targets; the changed configuration was refused`);
  }
}
