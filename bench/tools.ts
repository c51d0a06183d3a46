import type { Route } from './route.ts';

/** What else a person has to copy a database. */
export interface Tool {
  label: string;
  /** How to name it in a command line that a person would type. */
  command: (origin: string, target: string, route: Route) => readonly [string, ...string[]];
  /** It starts from a copy of the replica; the others write a file that is not there yet. */
  updates: boolean;
  /** Bytes in both directions, from its output, where it tells. */
  wireBytes?: (stdout: string) => number;
}

export const TOOL_NAMES = ['backup', 'vacuum-into', 'cp', 'dd', 'rsync'] as const;

export type ToolName = (typeof TOOL_NAMES)[number];

export const TOOLS: Record<ToolName, Tool> = {
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
  rsync: {
    label: '`rsync --inplace`',
    command: (origin, target, route) => [
      'rsync',
      '--inplace',
      '--no-whole-file',
      '--stats',
      ...route.rsyncOptions,
      route.location(origin),
      target,
    ],
    updates: true,
    wireBytes: (stdout) => {
      const totals = [...stdout.matchAll(/^Total bytes (?:sent|received): ([\d,.]+)$/gm)];
      if (totals.length !== 2) throw new Error(`expected the statistics of rsync, not ${stdout}`);
      return totals.reduce((sum, [, digits = '']) => sum + Number(digits.replaceAll(/[,.]/g, '')), 0);
    },
  },
};

function quote(text: string): string {
  return `'${text.replaceAll("'", "''")}'`;
}
