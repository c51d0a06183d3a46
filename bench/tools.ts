import type { Route } from './route.ts';

/** Another way for a person to copy a database. */
export interface Tool {
  /** Unique among the tools of a run. */
  name: string;
  label: string;
  /** How to name it in a command line that a person would type. */
  command: (origin: string, target: string, route: Route) => readonly [string, ...string[]];
  /** It starts from a copy of the replica; the others write a file that is not there yet. */
  updates: boolean;
  /** Bytes in both directions, from its output, if it tells. */
  wireBytes?: (stdout: string) => number;
}

export const TOOL_NAMES = ['backup', 'vacuum-into', 'cp', 'dd', 'rsync', 'rsync-plain'] as const;

export type ToolName = (typeof TOOL_NAMES)[number];

const TOOLS: Record<ToolName, Omit<Tool, 'name'>> = {
  backup: {
    label: '`sqlite3 .backup`',
    command: (origin, target) => ['sqlite3', origin, `.backup ${quote(target)}`],
    updates: false,
  },
  'vacuum-into': {
    label: '`VACUUM INTO`',
    command: (origin, target) => ['sqlite3', origin, `VACUUM INTO ${quote(target)}`],
    updates: false,
  },
  cp: { label: '`cp`', command: (origin, target) => ['cp', origin, target], updates: false },
  dd: {
    label: '`dd conv=fsync`',
    command: (origin, target) => ['dd', `if=${origin}`, `of=${target}`, 'bs=1M', 'conv=fsync'],
    updates: false,
  },
  rsync: rsync('`rsync --inplace`', []),
  'rsync-plain': rsync('`rsync --inplace` without `-z`', ['--no-compress']),
};

export function toolsNamed(names: readonly ToolName[]): Tool[] {
  return names.map((name) => ({ name, ...TOOLS[name] }));
}

/**
 * A tool of the user's: `NAME=COMMAND`, run by a shell, in which `{origin}` and `{replica}` stand for what sqlsync gets
 * in that round: the location of the origin, and the path of a fresh copy of the replica. `{ssh}` is a program that
 * reaches the origin's host as `ssh` does. Throws TypeError.
 */
export function peerTool(text: string): Tool {
  const [, name, command] = /^([\w.-]+)=(.*\{origin\}.*)$/s.exec(text) ?? [];
  if (name === undefined || command?.includes('{replica}') !== true) {
    throw Object.assign(
      new TypeError(`--peer ${text}: expected NAME=COMMAND with {origin} and {replica} in the command`),
      { code: 'ERR_PEER' },
    );
  }
  return {
    name,
    label: name,
    command: (origin, target, route) => [
      'sh',
      '-c',
      command
        .replaceAll('{origin}', () => shellQuote(route.location(origin)))
        .replaceAll('{ssh}', () => shellQuote(route.sshProgram))
        .replaceAll('{replica}', () => shellQuote(target)),
    ],
    updates: true,
  };
}

function rsync(label: string, options: readonly string[]): Omit<Tool, 'name'> {
  return {
    label,
    command: (origin, target, route) => [
      'rsync',
      '--inplace',
      '--no-whole-file',
      '--stats',
      ...route.rsyncOptions,
      ...options,
      route.location(origin),
      target,
    ],
    updates: true,
    wireBytes: (stdout) => {
      const totals = [...stdout.matchAll(/^Total bytes (?:sent|received): ([\d,.]+)$/gm)];
      if (totals.length !== 2) throw new Error(`expected the statistics of rsync, not ${stdout}`);
      return totals.reduce((sum, [, digits = '']) => sum + Number(digits.replaceAll(/[,.]/g, '')), 0);
    },
  };
}

function shellQuote(text: string): string {
  return `'${text.replaceAll("'", "'\\''")}'`;
}

function quote(text: string): string {
  return `'${text.replaceAll("'", "''")}'`;
}
