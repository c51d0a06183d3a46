import { formatLocation, parseLocation } from '../../transport/location.ts';
import type { Location } from '../../transport/location.ts';

export type RemoteLocation = Extract<Location, { kind: 'ssh' }>;

const SSH_PORT = 22;

/** True for the address of a store that is no folder of this host: `s3:…`, `sftp:…`, `[user@]host:path`, `ssh://…`. */
export function isElsewhere(text: string): boolean {
  return isStoreAddress(text) || isOnAnotherHost(text);
}

/** True for the address of a store that can be nothing else: `s3:…` and `sftp:…`. */
export function isStoreAddress(text: string): boolean {
  return /^s(?:3|ftp):/.test(text);
}

/** True for `[user@]host:path` and `ssh://…`, which may name a database as well. Such a folder here is `./host:path`. */
export function isOnAnotherHost(text: string): boolean {
  try {
    return !isStoreAddress(text) && parseLocation(text).kind === 'ssh';
  } catch {
    return false;
  }
}

/**
 * One spelling of a place on another host. The user and the host stay as they are written: only the configuration of SSH
 * knows what an alias means.
 */
export function placeOnHost({ port, ...location }: RemoteLocation): string {
  const path = location.path
    .replaceAll(/\/(?:\.?\/)+/g, '/')
    .replace(/^(?:\.\/)+(?=.)/, '')
    .replace(/(?<=.)\/\.?$/, '');
  const host = location.host.toLowerCase();
  const usual = port === undefined || port === SSH_PORT ? {} : { port };
  return formatLocation({ ...location, ...usual, host, path });
}
