import { existsSync, mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { SftpFiles } from '../../src/backup/backends/sftp/sftp-files.ts';
import { spawnProcess } from '../../src/transport/process.ts';
import { tempDir } from '../support/compare.ts';
import { backendSuite } from './backend-suite.ts';

/** Where Debian, Alpine, Fedora and macOS have OpenSSH's server. */
const SERVER = [
  '/usr/lib/openssh/sftp-server',
  '/usr/lib/ssh/sftp-server',
  '/usr/libexec/openssh/sftp-server',
  '/usr/libexec/sftp-server',
].find((path) => existsSync(path));

if (SERVER !== undefined)
  backendSuite('SFTP', (t) => {
    const folder = tempDir(t);
    mkdirSync(join(folder, 'home'));
    const path = join(folder, 'home', 'deep', 'store');
    return Promise.resolve(() => {
      const connect = () =>
        Promise.resolve(spawnProcess({ command: SERVER, args: [], description: 'sftp-server' }));
      const files = new SftpFiles({ address: `sftp:here:${path}`, path, connect });
      t.after(() => files.close());
      return files;
    });
  });
