import { execFileSync } from 'node:child_process';
import { chmodSync, mkdirSync, writeFileSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import type { TestContext } from 'node:test';
import { smallDatabase } from '../pages/databases.ts';
import { tempDir } from './compare.ts';
import type { Sshd } from './sshd.ts';

/** A folder with a database `a.db`, and an environment in which `ssh` knows the server as sqlsync-test. */
export function placed(t: TestContext, sshd: Sshd): { folder: string; env: NodeJS.ProcessEnv } {
  const folder = tempDir(t);
  smallDatabase(join(folder, 'a.db'), { rows: 3000 });
  const bin = join(folder, 'bin');
  mkdirSync(bin);
  const ssh = execFileSync('sh', ['-c', 'command -v ssh'], { encoding: 'utf8' }).trim();
  writeFileSync(join(bin, 'ssh'), `#!/bin/sh\nexec ${ssh} -F '${sshd.sshConfigFile}' "$@"\n`);
  chmodSync(join(bin, 'ssh'), 0o755);
  const env = {
    ...process.env,
    PATH: `${bin}${delimiter}${process.env['PATH']}`,
    XDG_CACHE_HOME: join(folder, 'cache'),
  };
  return { folder, env };
}
