import { once } from 'node:events';
import { join } from 'node:path';
import type { Server } from 'node:net';
import { SqlsyncError, toSqlsyncError } from '../../errors.ts';
import { makePrivateFolder } from '../../files/user-cache.ts';
import { tryExclusiveLock } from '../../sqlite/locks/exclusive-lock.ts';
import { readConfig } from '../config/read-config.ts';
import { stateFolder } from '../state/state.ts';
import { serveStatus } from './control-socket.ts';
import { openNotifier } from './notify.ts';
import { Service } from './service.ts';
import type { ServiceListeners } from './service.ts';

export interface RunOptions {
  readonly config: string;
  /** Opens what else shows the status; it is closed at the end. Rejects if it cannot. */
  readonly listen: ((service: Service) => Promise<Server>) | undefined;
  readonly listeners: ServiceListeners & {
    onStarted(targets: number): void;
    onReloaded(targets: number): void;
    onReloadFailed(failure: SqlsyncError): void;
  };
}

/**
 * Runs the service until SIGTERM, SIGINT or the like; a second one ends the process at once. SIGHUP reads the
 * configuration again. Resolves when all that was under way has ended.
 *
 * @throws {SqlsyncError} CONFIG_INVALID; LOCKED if another service runs with this configuration. Nothing was started.
 */
export async function runService({ config: path, listen, listeners }: RunOptions): Promise<void> {
  const config = readConfig(path);
  const folder = stateFolder(config.file, config.stateFolder);
  makePrivateFolder(folder);
  const lock = tryExclusiveLock(join(folder, 'lock'));
  if (lock === undefined)
    throw new SqlsyncError('LOCKED', 'Another service runs with this configuration; this one did nothing', {
      hint: '`sqlsync status` shows what it does. It takes a changed file when it gets SIGHUP.',
    });
  const servers: Server[] = [];
  const notifier = openNotifier(process.env, (text) => listeners.onWarning(text));
  const { promise: asked, resolve: end } = Promise.withResolvers<void>();
  const service = new Service(config, folder, listeners);
  const reload = (): void => void reloadService(service, path, folder, notifier, listeners);
  const ends = ['SIGTERM', 'SIGINT'] as const;
  try {
    servers.push(await serveStatus(folder, () => service.status));
    if (listen !== undefined) servers.push(await listen(service));
    process.on('SIGHUP', reload);
    for (const name of ends) process.once(name, () => end());
    service.start();
    listeners.onStarted(service.size);
    await notifier.ready(`${service.size} targets`);
    await asked;
    process.removeListener('SIGHUP', reload);
    // A reload that comes now must not end the process in the middle of its end.
    process.on('SIGHUP', () => {});
    await Promise.all([notifier.stopping(), service.stop()]);
  } finally {
    notifier.close();
    await Promise.all(servers.map(closed));
    lock.release();
  }
}

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
  } catch (error) {
    const failure = toSqlsyncError(error);
    service.states.reloadFailed(failure, Date.now());
    listeners.onReloadFailed(failure);
  }
  await notifier.ready(`${service.size} targets`);
}

async function closed(server: Server): Promise<void> {
  if (!server.listening) return;
  const done = once(server, 'close');
  server.close();
  if ('closeAllConnections' in server && typeof server.closeAllConnections === 'function')
    server.closeAllConnections();
  await done;
}
