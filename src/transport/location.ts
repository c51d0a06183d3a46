import { SqlsyncError, sanitizeText } from '../errors.ts';
import { checkPath } from '../files/path-names.ts';

/**
 * Where a database lives, as the user names it.
 *
 * The path is kept as given: a relative local path is relative to the working directory, a relative remote path to the
 * home folder of the remote user.
 */
export type Location =
  { kind: 'local'; path: string } | { kind: 'ssh'; user?: string; host: string; port?: number; path: string };

/** Two letters at least: `c://x` is a drive, or a host named c. */
const SCHEME = /^[a-z][a-z0-9+.-]+:\/\//i;

/** As in git, which has two older names for `ssh`. */
const SSH_SCHEME = /^(?:ssh|git\+ssh|ssh\+git):\/\//i;

type SshLocation = Extract<Location, { kind: 'ssh' }>;

/**
 * Reads `[user@]host:path` as rsync, scp and git do: a colon before any slash makes it remote. So `./a:b`, `/a:b` and
 * `C:\x` are local. `[::1]:path` holds an IPv6 address. `ssh://[user@]host[:port]/path` (percent-encoded, absolute;
 * `/~/path` is relative to the home folder) can name a port, and so can `git+ssh://` and `ssh+git://`.
 *
 * @throws {SqlsyncError} USAGE if the text cannot name a database.
 */
export function parseLocation(text: string): Location {
  checkPath(text);
  const scheme = SSH_SCHEME.exec(text)?.[0];
  if (scheme !== undefined) return parseSshUrl(text, text.slice(scheme.length));
  if (SCHEME.test(text)) {
    throw usage(
      `the location ${quote(text)} has a scheme that sqlsync does not support; expected a path, [user@]host:path or ssh://…`,
      `If it is a local path, write ${quote(`./${text}`)}.`,
    );
  }
  const separator = remoteSeparator(text);
  if (separator === -1) return localLocation(text);
  const { user, host } = parseAuthority(text.slice(0, separator), text);
  return sshLocation(text, user, host, undefined, homeRelative(text.slice(separator + 1)));
}

/** The shortest text that {@link parseLocation} reads back as `location`. */
export function formatLocation(location: Location): string {
  if (location.kind === 'local') {
    const ambiguous = remoteSeparator(location.path) !== -1 || SCHEME.test(location.path);
    return ambiguous ? `./${location.path}` : location.path;
  }
  const host = location.host.includes(':') ? `[${location.host}]` : location.host;
  const path = location.path.startsWith('~') ? `./${location.path}` : location.path;
  const short = `${location.user === undefined ? '' : `${location.user}@`}${host}:${path}`;
  const onlyUrl = location.port !== undefined || /[:/]/.test(location.user ?? '') || isDrivePath(short);
  if (!onlyUrl && !SCHEME.test(short)) return short;
  const user = location.user === undefined ? '' : `${encodeURIComponent(location.user)}@`;
  const port = location.port === undefined ? '' : `:${location.port}`;
  const encoded = path.replaceAll('%', '%25').replace(/^\/~/, '/%7E');
  return `ssh://${user}${host}${port}${path.startsWith('/') ? encoded : `/~/${encoded}`}`;
}

/** Index of the colon that ends `[user@]host`; -1 if the text names a local path. */
function remoteSeparator(text: string): number {
  if (isDrivePath(text)) return -1;
  const bracketed = /^(?:[^/:[\]]*@)?\[[^\]/]*\]:/.exec(text);
  if (bracketed !== null) return bracketed[0].length - 1;
  const colon = text.indexOf(':');
  const slash = text.indexOf('/');
  return colon !== -1 && (slash === -1 || colon < slash) ? colon : -1;
}

/** `C:\x` everywhere (a host name has no backslash), `C:/x` only on systems with drives. */
function isDrivePath(text: string): boolean {
  return /^[a-z]:\\/i.test(text) || (process.platform === 'win32' && /^[a-z]:\//i.test(text));
}

function localLocation(path: string): Location {
  if (path === '')
    throw usage('the location is empty; expected the path of a database', 'Name a database file.');
  return { kind: 'local', path };
}

/** `rest` is the text after the scheme. */
function parseSshUrl(text: string, rest: string): Location {
  const slash = rest.indexOf('/');
  const authority = slash === -1 ? rest : rest.slice(0, slash);
  const rawPath = slash === -1 ? '' : rest.slice(slash);
  const split = /^(.*?)(?::(\d*))?$/.exec(authority);
  const bracketed = /^(.*\])(?::(\d*))?$/.exec(authority);
  const [, name = '', port] = bracketed ?? split ?? [];
  const { user, host } = parseAuthority(name, text);
  if (user?.includes(':')) {
    throw new SqlsyncError('USAGE', 'the location holds a password; sqlsync takes none', {
      hint: 'Use a key or an SSH agent, and remove the password from the location.',
    });
  }
  const path = decode(rawPath.startsWith('/~') ? homeRelative(rawPath.slice(1)) : rawPath, text);
  return sshLocation(
    text,
    user === undefined ? undefined : decode(user, text),
    host,
    parsePort(port, text),
    path === '/' ? '' : path,
  );
}

function parsePort(digits: string | undefined, text: string): number | undefined {
  if (digits === undefined || digits === '') return undefined;
  const port = Number(digits);
  if (port >= 1 && port <= 65535) return port;
  throw usage(
    `the port in ${quote(text)} is ${sanitizeText(digits, 20)}; expected 1 to 65535`,
    'Give the port on which sshd listens.',
  );
}

/** `[user@]host`; the last `@` separates, so that a user name may be an e-mail address. */
function parseAuthority(authority: string, text: string): { user: string | undefined; host: string } {
  const at = authority.lastIndexOf('@');
  const user = at === -1 ? undefined : authority.slice(0, at);
  const named = authority.slice(at + 1);
  const bracketed = /^\[(.*)\]$/.exec(named);
  const host = bracketed?.[1] ?? named;
  if (bracketed === null && /[[\]:]/.test(host)) {
    throw usage(
      `the host in ${quote(text)} is not a name or an address`,
      'Write an IPv6 address in brackets, as in [::1]:path.',
    );
  }
  return { user, host };
}

function sshLocation(
  text: string,
  user: string | undefined,
  host: string,
  port: number | undefined,
  path: string,
): SshLocation {
  checkName('host', host, text);
  if (user !== undefined) checkName('user', user, text);
  if (path === '') {
    throw usage(
      `no path follows the host in ${quote(text)}; expected host:path`,
      'Add the path of the database on that host.',
    );
  }
  checkPath(path);
  return {
    kind: 'ssh',
    ...(user === undefined ? {} : { user }),
    host,
    ...(port === undefined ? {} : { port }),
    path,
  };
}

/**
 * Refuses a name that `ssh` would take for an option, and a name that no host or user can have. Every location passes
 * here.
 */
function checkName(what: 'host' | 'user', name: string, text: string): void {
  const fault =
    name === ''
      ? 'is empty'
      : name.startsWith('-')
        ? 'starts with a dash'
        : // oxlint-disable-next-line no-control-regex -- control characters are exactly what is refused
          /[\s\u0000-\u001f\u007f]/.test(name)
          ? 'holds white space or control characters'
          : undefined;
  if (fault === undefined) return;
  throw usage(
    `the ${what} in ${quote(text)} ${fault}; expected [user@]host:path`,
    `If it is a local path, write ${quote(`./${text}`)}.`,
  );
}

/** A remote shell would expand `~/x` to a path in the home folder. No shell sees our paths, so do the same here. */
function homeRelative(path: string): string {
  if (path === '~' || path === '~/') return '';
  if (path.startsWith('~/')) return path.slice(2).replace(/^\/+/, '');
  if (path.startsWith('~')) {
    throw usage(
      `the remote path ${quote(path)} names another user's home folder, which only a shell can find`,
      'Give the absolute path, or ./~name for a file of that name.',
    );
  }
  return path;
}

function decode(text: string, whole: string): string {
  try {
    return decodeURIComponent(text);
  } catch (error) {
    throw usage(`${quote(whole)} is not percent-encoded correctly`, 'Write a percent sign as %25.', error);
  }
}

function quote(text: string): string {
  return `"${sanitizeText(text, 200)}"`;
}

function usage(message: string, hint: string, cause?: unknown): SqlsyncError {
  return new SqlsyncError('USAGE', message, { hint, cause });
}
