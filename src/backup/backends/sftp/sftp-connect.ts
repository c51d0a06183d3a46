import { connectRsh } from '../../../transport/rsh.ts';
import { connectSsh } from '../../../transport/ssh/ssh.ts';
import type { Transport } from '../../../transport/transport.ts';
import { parseSftpAddress } from './address.ts';
import type { SftpLocation } from './address.ts';
import type { SftpPlace } from './sftp-files.ts';

/**
 * How to reach the store of an address: by the SSH built in, as configured for OpenSSH, or by the remote shell that
 * SQLSYNC_RSH names. Throws SqlsyncError USAGE.
 */
export function sftpPlace(address: string): SftpPlace {
  const location = parseSftpAddress(address);
  return { address, path: location.path, connect: () => connect(location) };
}

function connect({ host, user, port }: SftpLocation): Promise<Transport> {
  const rsh = process.env['SQLSYNC_RSH'] ?? '';
  if (rsh === '') return connectSsh({ host, user, port, command: 'sftp', isSubsystem: true });
  return connectRsh({ rsh, host, user, remoteCommand: ['sftp'], isSubsystem: true, ssh: { port } });
}
