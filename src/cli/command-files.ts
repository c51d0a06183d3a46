import type { Command } from './options/command.ts';

type Load = () => Promise<{ readonly command: Command }>;

/** The commands for people. Each is a module of the same name, loaded when it is used. */
const PUBLIC: Readonly<Record<string, Load>> = {
  sync: () => import('./commands/sync.ts'),
  follow: () => import('./commands/follow.ts'),
  verify: () => import('./commands/verify.ts'),
  setup: () => import('./commands/setup.ts'),
  doctor: () => import('./commands/doctor.ts'),
  init: () => import('./commands/init.ts'),
  backup: () => import('./commands/backup.ts'),
  snapshots: () => import('./commands/snapshots.ts'),
  restore: () => import('./commands/restore.ts'),
  diff: () => import('./commands/diff.ts'),
  report: () => import('./commands/report.ts'),
  forget: () => import('./commands/forget.ts'),
  prune: () => import('./commands/prune.ts'),
  copy: () => import('./commands/copy.ts'),
  check: () => import('./commands/check.ts'),
  repair: () => import('./commands/repair.ts'),
  key: () => import('./commands/key.ts'),
  stats: () => import('./commands/stats.ts'),
  dump: () => import('./commands/dump.ts'),
  open: () => import('./commands/open.ts'),
  run: () => import('./commands/run.ts'),
  status: () => import('./commands/status.ts'),
  config: () => import('./commands/config.ts'),
  completion: () => import('./commands/completion.ts'),
};

/** Commands that other programs start. */
const INTERNAL: Readonly<Record<string, Load>> = {
  agent: () => import('./commands/agent.ts'),
  'build-binding': () => import('./commands/build-binding.ts'),
};

const ALL = { ...PUBLIC, ...INTERNAL };

/** Runs if the command line names no command. */
export const DEFAULT_COMMAND = 'sync';

export const PUBLIC_COMMAND_NAMES: readonly string[] = Object.keys(PUBLIC);

/** Names of future commands: otherwise a command line with a database of such a name would change its meaning then. */
export const RESERVED_NAMES: ReadonlySet<string> = new Set('mount tag help'.split(' '));

/** Includes the commands that other programs start. */
export const COMMAND_NAMES: readonly string[] = Object.keys(ALL);

export function isCommand(name: string): boolean {
  return Object.hasOwn(ALL, name);
}

/** @param name - of a command. */
export async function loadCommand(name: string): Promise<Command> {
  return (await (ALL[name] as Load)()).command;
}

export function loadCommands(names: readonly string[] = PUBLIC_COMMAND_NAMES): Promise<Command[]> {
  return Promise.all(names.map(loadCommand));
}
