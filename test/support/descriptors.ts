import { readdirSync, readlinkSync } from 'node:fs';

/** How many descriptors of this process lead to a file. */
export function openDescriptors(path: string): number {
  const links = readdirSync('/proc/self/fd').map((name) => {
    try {
      return readlinkSync(`/proc/self/fd/${name}`);
    } catch {
      return ''; // the descriptor by which the folder was read
    }
  });
  return links.filter((link) => link === path).length;
}
