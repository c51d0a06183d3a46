import { SqlsyncError } from '../../errors.ts';
import type { Platform } from './bundle.ts';
import type { FarShell } from './far-shell.ts';
import { SURVEY } from './far-scripts.ts';

/** What is installed on the other host, and what it could run. All texts are safe to show. */
export interface Installed {
  readonly user: string;
  readonly home: string;
  readonly system: string;
  /** Where the PATH of the login has a sqlsync; '' without one. */
  readonly onPath: string;
  /** The folder of the installed version that the link leads to; '' without one. */
  readonly current: string;
  /** What the installed sqlsync calls its version; '' if it does not run. */
  readonly version: string;
  /** The SHA-256 of the bundle that it comes from. */
  readonly sha256: string;
  /** The names of all installed versions, and of those that processes run from. */
  readonly places: readonly string[];
  readonly used: readonly string[];
  /** A program of another origin in the place of the link; '' without one. */
  readonly foreign: string;
  readonly glibc: string;
  readonly musl: string;
  readonly lacks: readonly string[];
  readonly freeBytes: number;
}

/** Throws SqlsyncError. */
export async function surveyInstalled(shell: FarShell): Promise<Installed> {
  const answers = await shell.run(SURVEY);
  const text = (name: string): string => answers.one(name);
  return {
    user: text('user'),
    home: text('home'),
    system: text('system'),
    onPath: text('onPath'),
    current: text('current'),
    version: text('version'),
    sha256: text('sha256'),
    places: answers.all('place'),
    used: answers.all('used'),
    foreign: text('foreign'),
    glibc: text('glibc'),
    musl: text('musl'),
    lacks: answers.all('lacks'),
    freeBytes: (Number(text('freeKib')) || 0) * 1024,
  };
}

/** Debian 10, Ubuntu 18.10 and RHEL 8 have it. */
const GLIBC_MIN = [2, 28] as const;

const MACHINES: Readonly<Record<string, Platform>> = {
  x86_64: 'linux-x64',
  amd64: 'linux-x64',
  aarch64: 'linux-arm64',
  arm64: 'linux-arm64',
};

/** The platform of the bundle that the host can run. Throws SqlsyncError NODE_UNSUPPORTED if it can run none. */
export function platformOf({ system, glibc, musl, lacks }: Installed): Platform {
  const [kernel, machine = ''] = system.split(' ');
  const platform = MACHINES[machine];
  if (kernel !== 'Linux' || platform === undefined)
    throw unsupported(`it is ${system}, and there are bundles for Linux on x86_64 and aarch64`);
  const [, major, minor] = /(\d+)\.(\d+)/.exec(glibc) ?? [];
  // A glibc system may have musl beside it, and a small one may lack getconf: then the program itself shows it.
  if (major === undefined && musl !== '') throw unsupported(`its C library is musl (${musl}), not glibc`);
  if (major !== undefined && Number(major) === GLIBC_MIN[0] && Number(minor) < GLIBC_MIN[1])
    throw unsupported(`it has ${glibc}; expected ${GLIBC_MIN.join('.')} or newer`);
  if (lacks.length > 0)
    throw new SqlsyncError('SYSTEM_ERROR', `The other host lacks ${lacks.join(', ')}`, {
      hint: 'Install that there, and run it again.',
    });
  return platform;
}

function unsupported(why: string): SqlsyncError {
  return new SqlsyncError('NODE_UNSUPPORTED', `No bundle runs on the other host: ${why}`, {
    hint: 'Copy a checkout of sqlsync there and run `npm ci` in it, which needs npm and a C++ compiler.',
  });
}
