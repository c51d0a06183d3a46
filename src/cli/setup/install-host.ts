import { sanitizeText } from '../../errors.ts';
import { install, uninstall } from '../../sync/install/install.ts';
import type { Change, Plan } from '../../sync/install/install.ts';
import type { FarShellOptions } from '../../sync/install/far-shell.ts';
import { shellQuote } from '../../transport/command-words.ts';
import { formatBytes } from '../terminal/format.ts';
import type { Output } from '../terminal/output.ts';
import { transferListeners } from '../terminal/progress.ts';
import { isConfirmed } from './confirm.ts';
import type { ConfirmArguments } from './confirm.ts';

/** Options that change what is installed on the other host. */
export const INSTALL_OPTIONS = {
  install: {
    describe: 'Install sqlsync there, or bring it up to date: in ~/.local, without Node.js, npm and compiler',
    more: 'See [Installing it](remote.md#installing-it).',
  },
  uninstall: { describe: 'Remove what --install brought' },
  bundle: {
    value: 'FILE',
    describe:
      'What --install sends: a sqlsync-VERSION-PLATFORM.tar.gz (default: the one of `npm run bundle`)',
    more: 'It is looked for in build/ of a checkout, and beside the folder of a bundle that runs this command.',
  },
  'dry-run': { alias: 'n', describe: 'Say what --install or --uninstall would change, and change nothing' },
  yes: { alias: 'y', describe: 'Do not ask before changing the other host' },
} as const;

export interface InstallArguments extends ConfirmArguments {
  readonly uninstall: boolean;
  readonly bundle: string | undefined;
}

/** Installs or removes sqlsync on `host`, and says what changed. Throws SqlsyncError. */
export async function installOnHost(
  args: InstallArguments,
  host: string,
  options: FarShellOptions,
  output: Output,
): Promise<Change> {
  const confirm = (plan: Plan): Promise<boolean> =>
    isConfirmed(args, output, describePlan(host, plan, args.uninstall));
  const progress = transferListeners(output);
  try {
    const change = args.uninstall
      ? await uninstall({ ...options, confirm })
      : await install({
          ...options,
          confirm,
          bundle: args.bundle,
          onProgress: (sent, size) => progress.onProgress(sent, size),
        });
    progress.end();
    output.result(describeChange(host, change, args.uninstall));
    return change;
  } finally {
    progress.end();
  }
}

/** The change as fields of a summary. */
export function changeAsJson({ plan, isDone, place, removed, kept }: Change): Record<string, unknown> {
  const { bundle, there, remove } = plan;
  return {
    changed: isDone,
    bundle: bundle?.path,
    version: bundle?.version ?? (there.version || undefined),
    place: place === '' ? undefined : place,
    remove,
    removed,
    kept,
  };
}

function describePlan(host: string, { there, bundle, remove, keep }: Plan, isRemoval: boolean): string[] {
  const lines = [`On ${host} (${there.user}, ${there.system}):`];
  const root = `${there.home}/.local/share/sqlsync`;
  if (bundle !== undefined) {
    const { path, sizeBytes, neededBytes, version } = bundle;
    const now = there.version === '' ? '' : `, now ${there.version}`;
    lines.push(
      `  send    ${sanitizeText(path, 300)} (${formatBytes(sizeBytes)})`,
      `  unpack  ${root}/${version} (${formatBytes(neededBytes)})`,
      `  link    ${there.home}/.local/bin/sqlsync${now}`,
    );
  } else if (isRemoval && there.current !== '') lines.push(`  remove  ${there.home}/.local/bin/sqlsync`);
  for (const name of remove) lines.push(`  remove  ${root}/${name}`);
  for (const name of keep) lines.push(`  keep    ${root}/${name}, since processes run from it`);
  return lines;
}

function describeChange(host: string, change: Change, isRemoval: boolean): string {
  const { plan, isDone, place, kept } = change;
  const { there, bundle } = plan;
  const lines = [headline(host, change, isRemoval)];
  if (isDone && kept.length > 0)
    lines.push(`  kept     ${kept.join(', ')}: processes run from it; the next run of setup removes it`);
  if (!isRemoval && (isDone || bundle === undefined))
    lines.push(...pathLines(there.onPath, `${there.home}/.local/bin`));
  if (isDone && !isRemoval) lines.splice(1, 0, `  in       ${place}`);
  return lines.join('\n');
}

function headline(host: string, { plan, isDone, removed }: Change, isRemoval: boolean): string {
  const { there, bundle } = plan;
  if (isRemoval) {
    if (isDone) return `${host}: removed ${removed.join(', ')}`;
    return there.places.length === 0 ? `${host} has no sqlsync that setup installed` : `${host} is unchanged`;
  }
  if (bundle === undefined) return `${host} has this sqlsync ${there.version} already`;
  return isDone ? `${host} has sqlsync ${bundle.version} now` : `${host} is unchanged`;
}

/** How syncs and people find the command. */
function pathLines(onPath: string, bin: string): string[] {
  const link = `${bin}/sqlsync`;
  if (onPath === link) return [];
  if (onPath !== '')
    return [
      `  the PATH there has another one, ${onPath}; for this one add: --remote-exe ${shellQuote(link)}`,
    ];
  return [`  syncs find it there; for your own logins: echo 'PATH=$HOME/.local/bin:$PATH' >> ~/.profile`];
}
