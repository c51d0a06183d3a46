import { existsSync } from 'node:fs';

/** OpenSSH's server, where Debian, Alpine, Fedora and macOS have it. */
export const SFTP_SERVER: string | undefined = [
  '/usr/lib/openssh/sftp-server',
  '/usr/lib/ssh/sftp-server',
  '/usr/libexec/openssh/sftp-server',
  '/usr/libexec/sftp-server',
].find((path) => existsSync(path));

export const SFTP_SERVER_MISSING = 'NOT TESTED: OpenSSH’s sftp-server is missing';
