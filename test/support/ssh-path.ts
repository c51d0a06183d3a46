import { mkdirSync, writeFileSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import type { Sshd } from './sshd.ts';

/**
 * A PATH whose `ssh` knows this host as `sqlsync-test`. The SSH built in asks it, too, for the settings of a host.
 *
 * @param folder - gets a folder `ssh-bin`.
 */
export function pathWithSsh(sshd: Sshd, folder: string): string {
  const bin = join(folder, 'ssh-bin');
  mkdirSync(bin);
  const script = `#!/bin/sh\nPATH=\${PATH#*:}\nexec ssh -F '${sshd.sshConfigFile}' "$@"\n`;
  writeFileSync(join(bin, 'ssh'), script, { mode: 0o755 });
  return `${bin}${delimiter}${process.env['PATH'] ?? ''}`;
}
