import { readdirSync } from 'node:fs';

/** The paths that lead to the open descriptors of this process; undefined if the system does not list them. */
export function ownDescriptors(): readonly string[] | undefined {
  if (process.platform !== 'linux') return undefined;
  try {
    return readdirSync('/proc/self/fd').map((name) => `/proc/self/fd/${name}`);
  } catch {
    return undefined;
  }
}
