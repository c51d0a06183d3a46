import { dirname } from 'node:path';
import { sanitizeText } from '../../errors.ts';
import { shellQuote, shellWord } from '../../transport/command-words.ts';
import type { RemoteShell } from '../link/remote-shell.ts';
import type { AgentAnswer, SetupCheck, SetupOptions } from './setup-report.ts';

/** What a shell on the other host reports. Its texts are safe to show. */
export interface Survey {
  readonly user: string;
  readonly system: string;
  /** Where the login finds sqlsync; '' if it does not. */
  readonly exe: string;
  /** The path of a sqlsync that the login does not find. */
  readonly elsewhere: string;
  /** 'v24.1.0'; '' without Node.js. */
  readonly node: string;
  readonly kind: 'file' | 'folder' | 'nothing';
  readonly readable: boolean;
  readonly writable: boolean;
  /** The folder that contains the path, or that the path is. */
  readonly folderThere: boolean;
  readonly folderWritable: boolean;
  readonly freeKib: number;
}

export const NODE_MEND =
  "sqlsync there runs on an older Node.js. Where it is a checkout, it brings a newer one: --remote-exe 'DIR/node_modules/.bin/node DIR/bin/sqlsync.js'";

/** The usual places, including those that a login shell's profile would add to PATH. */
const PLACES = [
  '"$HOME"/.local/bin/sqlsync',
  '"$HOME"/bin/sqlsync',
  '/usr/local/bin/sqlsync',
  '/opt/sqlsync/bin/sqlsync.js',
  '"$HOME"/sqlsync/bin/sqlsync.js',
  '"$HOME"/node_modules/.bin/sqlsync',
  '"$HOME"/.nvm/versions/node/*/bin/sqlsync',
  '/opt/homebrew/bin/sqlsync',
];

/** No command here may read stdin: the shell reads its commands from there. */
export async function survey(shell: RemoteShell, path: string, remoteExe: string): Promise<Survey> {
  const exe = /^[\w./~-]+$/.test(remoteExe) ? remoteExe : 'sqlsync';
  const answer = await shell.ask(`
p=${shellWord(path === '' ? '.' : dashSafe(path))}
if [ -d "$p" ]; then k=folder; d=$p; elif [ -e "$p" ]; then k=file; else k=nothing; fi
[ "$k" = folder ] || d=$(dirname "$p"; echo x)
[ "$k" = folder ] || d=\${d%?x}
say() { printf '%s=%s\\n' "$1" "$2" | tr '\\000-\\011\\013-\\037' '?'; }
yes() { if [ "$1" "$2" ]; then echo 1; else echo 0; fi; }
say user "$(id -un 2>/dev/null)"
say system "$(uname -sm 2>/dev/null)"
say exe "$(command -v ${exe} 2>/dev/null)"
for f in ${PLACES.join(' ')}; do [ -x "$f" ] && say elsewhere "$f" && break; done
say node "$(node --version </dev/null 2>/dev/null)"
say kind "$k"
say readable "$(yes -r "$p")"
say writable "$(yes -w "$p")"
say folderThere "$(yes -d "$d")"
say folderWritable "$(yes -w "$d")"
say freeKib "$(df -Pk "$d" 2>/dev/null | tail -n 1 | awk '{ print $4 }')"`);
  const values = new Map(
    answer.split('\n').map((line) => {
      const at = line.indexOf('=');
      return [line.slice(0, at), sanitizeText(line.slice(at + 1), 300)] as const;
    }),
  );
  const text = (name: string): string => values.get(name) ?? '';
  const kind = text('kind');
  return {
    user: text('user'),
    system: text('system'),
    exe: text('exe'),
    elsewhere: text('elsewhere'),
    node: text('node'),
    kind: kind === 'file' || kind === 'folder' ? kind : 'nothing',
    readable: text('readable') === '1',
    writable: text('writable') === '1',
    folderThere: text('folderThere') === '1',
    folderWritable: text('folderWritable') === '1',
    freeKib: Number(text('freeKib')) || 0,
  };
}

/** How to install sqlsync on a host without it, or how to use the one that it has. */
export function mendMissing(options: SetupOptions, found: Survey | undefined): string {
  if (found !== undefined && found.elsewhere !== '') {
    const there = shellQuote(found.elsewhere);
    return `it is at ${there}; add: --remote-exe ${there}`;
  }
  if (found !== undefined && /^Linux (?:x86_64|aarch64)$/.test(found.system))
    return `install it there: sqlsync setup --install ${hostWords(options)}`;
  const copy = `tar -cf - --exclude=.git --exclude=node_modules --exclude=build --exclude=dist . | ${sshTo(options)} 'mkdir -p sqlsync && cd sqlsync && tar -xf - && npm ci'`;
  return `in a checkout of sqlsync here: ${copy} — then add: --remote-exe 'sqlsync/node_modules/.bin/node sqlsync/bin/sqlsync.js'`;
}

export function checkRead(
  options: SetupOptions,
  found: Survey | undefined,
  { snapshot, failure }: AgentAnswer,
): SetupCheck {
  const name = 'read' as const;
  const { path } = options.location;
  if (snapshot !== undefined) {
    const mode = snapshot.wal ? 'WAL mode: writers do not wait' : 'rollback mode: writers wait for a sync';
    const size = (snapshot.pageCount * snapshot.pageSize) / 1e6;
    return { name, state: 'ok', detail: `${shown(path)}, a database of ${size.toFixed(1)} MB in ${mode}` };
  }
  // If the folder may not be searched, the file may exist all the same.
  const isHidden = found?.kind === 'nothing' && failure?.code === 'ORIGIN_PERMISSION';
  if (found?.kind === 'nothing' && !isHidden)
    return { name, state: 'unknown', detail: `${shown(path)} does not exist (yet)` };
  if (found?.kind === 'folder') {
    const detail = `${shown(path)} is a folder${found.readable ? '' : ' that may not be read'}`;
    return { name, state: found.readable ? 'ok' : 'missing', detail };
  }
  if (failure === undefined || !failure.code.startsWith('ORIGIN_')) {
    return { name, state: 'unknown', detail: failure?.message ?? 'the agent did not answer' };
  }
  const { code, message: detail, hint } = failure;
  const isClosed = found !== undefined && !found.readable && !isHidden;
  const grant = isClosed
    ? `${sshTo(options)} ${outer(`sudo setfacl -m u:${shellQuote(found.user)}:r ${shellWord(path)}`)}`
    : hint;
  return { name, state: 'missing', detail, code, mend: grant };
}

export function checkWrite(options: SetupOptions, found: Survey | undefined): SetupCheck {
  const name = 'write' as const;
  const { path } = options.location;
  if (found === undefined) return { name, state: 'unknown', detail: 'no shell answers there' };
  const folder = found.kind === 'folder' ? path : dirname(path);
  if (!found.folderThere) {
    const mend = `${sshTo(options)} ${outer(`mkdir -p ${shellWord(folder)}`)}`;
    return {
      name,
      state: 'missing',
      detail: `${shown(folder)} does not exist`,
      code: 'REPLICA_UNWRITABLE',
      mend,
    };
  }
  const code = 'REPLICA_UNWRITABLE';
  if (!found.folderWritable) {
    // Do not suggest giving this user rights on this folder: it may be a home, whose owner could then not log in any
    // more, or the system's.
    const own = shellWord(folder === '/' ? '/sqlsync' : `${folder}/sqlsync`);
    const mend = `${sshTo(options)} ${outer(`sudo install -d -o ${shellQuote(found.user)} ${own}`)} — then name a path in that folder`;
    const detail = `${found.user} may not write ${shown(folder)}`;
    return { name, state: 'missing', detail, code, mend };
  }
  if (found.kind === 'file' && !found.writable) {
    const mend = `${sshTo(options)} ${outer(`sudo setfacl -m u:${shellQuote(found.user)}:rw ${shellWord(path)}`)}`;
    return { name, state: 'missing', detail: `${found.user} may not write ${shown(path)}`, code, mend };
  }
  const free = found.freeKib === 0 ? '' : `, ${((found.freeKib * 1024) / 1e9).toFixed(1)} GB free`;
  return { name, state: 'ok', detail: `${shown(folder)} may be written${free}` };
}

/** Without a path, checks the home folder, where relative paths begin. */
export function checkFolder(found: Survey): SetupCheck {
  const free = found.freeKib === 0 ? '' : `, ${((found.freeKib * 1024) / 1e9).toFixed(1)} GB free`;
  const state = found.folderWritable ? 'ok' : 'unknown';
  const may = found.folderWritable ? 'may be written' : 'may not be written';
  return { name: 'write', state, detail: `the home folder ${may}${free}; name a path to have that checked` };
}

/** The host as operand and options of another run of setup. */
function hostWords({ location, port, rsh }: SetupOptions): string {
  const user = location.user === undefined ? '' : `${location.user}@`;
  const at = port ?? location.port;
  const words = [`${user}${location.host}`, ...(at === undefined ? [] : ['--port', String(at)])];
  return [...words, ...(rsh === undefined ? [] : ['--rsh', rsh])].map(shellQuote).join(' ');
}

function sshTo({ location, port, rsh }: SetupOptions): string {
  const user = location.user === undefined ? '' : `${location.user}@`;
  const at = port ?? location.port;
  return `${rsh ?? 'ssh'}${at === undefined ? '' : ` -p ${at}`} ${user}${location.host}`;
}

function shown(path: string): string {
  return sanitizeText(path, 300);
}

/** As one word of the near shell, which passes it to the far one. */
function outer(command: string): string {
  return shellWord(sanitizeText(command, 2000));
}

/** A leading dash would be an option of dirname and df. */
function dashSafe(path: string): string {
  return path.startsWith('-') ? `./${path}` : path;
}
