import { sanitizeText, SqlsyncError } from '../../../errors.ts';
import { parseLocation } from '../../../transport/location.ts';
import { placeOnHost } from '../elsewhere.ts';
import type { RemoteLocation } from '../elsewhere.ts';

const BEGINNING = 'sftp:';

/** True for the address of a store behind an SFTP server. A folder of such a name is `./sftp:…`. */
export function isSftpAddress(text: string): boolean {
  return text.startsWith(BEGINNING);
}

export type SftpLocation = RemoteLocation;

/** One spelling of the place at an address. */
export function placeOfSftp(location: SftpLocation): string {
  return `${BEGINNING}${placeOnHost(location).replace(/^ssh:/, '')}`;
}

/**
 * Reads `sftp:[user@]host:path`, `sftp:[user@]host:port:path` and `sftp://[user@]host[:port]/path`. A path that does not
 * begin with a slash is relative to the folder in which the server begins; in the last form that is `/~/path`. Throws
 * SqlsyncError USAGE.
 */
export function parseSftpAddress(text: string): SftpLocation {
  const rest = text.slice(BEGINNING.length);
  const isUrl = rest.startsWith('//');
  const withPort = isUrl ? null : /^((?:[^/:[\]]*@)?(?:\[[^\]/]*\]|[^/:[\]]+)):(\d+):(.*)$/s.exec(rest);
  try {
    const location = parseLocation(
      isUrl ? `ssh:${rest}` : withPort === null ? rest : `${withPort[1]}:${withPort[3]}`,
    );
    if (location.kind !== 'ssh') throw new SqlsyncError('USAGE', 'no host');
    const port = withPort === null ? location.port : Number(withPort[2]);
    if (port !== undefined && (port < 1 || port > 65_535)) throw new SqlsyncError('USAGE', 'no port');
    return {
      ...location,
      ...(port === undefined ? {} : { port }),
      path: location.path.replace(/(?<=.)\/+$/, ''),
    };
  } catch (error) {
    if (!(error instanceof SqlsyncError)) throw error;
    throw new SqlsyncError('USAGE', `The store ${sanitizeText(text, 200)} is no address of an SFTP server`, {
      hint: 'Write sftp:[user@]host:path, sftp:[user@]host:port:path, or sftp://[user@]host[:port]/path.',
      cause: error,
    });
  }
}
