import { createReadStream } from 'node:fs';
import { SqlsyncError, sanitizeText } from '../../errors.ts';
import { orInterrupted } from '../runs/conversation.ts';
import { findBundle, readBundle } from './bundle.ts';
import type { Bundle } from './bundle.ts';
import { Answers, withFarShell } from './far-shell.ts';
import type { FarShell, FarShellOptions } from './far-shell.ts';
import { CHECK, DISCARD, PREPARE, PRELUDE, REMOVE_OLD, switchTo, UNINSTALL, unpack } from './far-scripts.ts';
import { platformOf, surveyInstalled } from './installed.ts';
import type { Installed } from './installed.ts';

/** What is to change on the other host. */
export interface Plan {
  readonly there: Installed;
  /** The bundle to install; undefined if it is installed, or if everything is to be removed. */
  readonly bundle: Bundle | undefined;
  /** The names of the versions to remove. */
  readonly remove: readonly string[];
  /** The names of those that stay, since processes run from them. */
  readonly keep: readonly string[];
}

export interface ChangeOptions extends FarShellOptions {
  /** Resolves with true if the change may be made. */
  readonly confirm: (plan: Plan) => Promise<boolean>;
}

export interface InstallOptions extends ChangeOptions {
  /** The file of the bundle; by default one that `findBundle` finds. */
  readonly bundle?: string | undefined;
  readonly onProgress?: ((sentBytes: number, sizeBytes: number) => void) | undefined;
}

export interface Change {
  readonly plan: Plan;
  /** False if there was nothing to change, or the change was not confirmed. */
  readonly isDone: boolean;
  /** The folder of the version that is in use now; '' without one. */
  readonly place: string;
  readonly removed: readonly string[];
  /** The names of the versions that stay until no process runs from them. */
  readonly kept: readonly string[];
}

/**
 * Puts a bundle into `~/.local/share/sqlsync` of a login on another host, and makes `~/.local/bin/sqlsync` lead to it.
 * Until the new version is there, complete and tried, the link leads to the old one. Throws SqlsyncError: USAGE without a
 * bundle, NODE_UNSUPPORTED if the host cannot run it, SYSTEM_ERROR if it does not arrive whole, and those of a login.
 */
export async function install(options: InstallOptions): Promise<Change> {
  return inFarShell(options, async (shell) => {
    const there = await surveyInstalled(shell);
    if (there.foreign !== '')
      throw new SqlsyncError('SYSTEM_ERROR', `${there.foreign} there is not one that setup installed`, {
        hint: 'Move it away, or use it as it is: --remote-exe.',
      });
    const bundle = await bundleFor(there, options.bundle);
    const isCurrent = there.sha256 === bundle.sha256 && there.version === bundle.version;
    const old = there.places.filter((name) => !isCurrent || !there.current.endsWith(`/${name}`));
    const [keep, remove] = [true, false].map((isUsed) =>
      old.filter((name) => there.used.includes(name) === isUsed),
    ) as [string[], string[]];
    const plan = { there, bundle: isCurrent ? undefined : bundle, keep, remove };
    const nothing = { plan, isDone: false, place: there.current, removed: [], kept: keep };
    if (isCurrent && remove.length === 0) return nothing;
    if (!isCurrent) checkRoom(there, bundle);
    if (!(await options.confirm(plan))) return nothing;
    const place = isCurrent ? there.current : await bringWhole(shell, bundle, options.onProgress);
    return { plan, isDone: true, place, ...removals(await shell.run(REMOVE_OLD)) };
  });
}

/** Removes what `install` brought, but for versions that processes run from. Throws SqlsyncError. */
export async function uninstall(options: ChangeOptions): Promise<Change> {
  return inFarShell(options, async (shell) => {
    const there = await surveyInstalled(shell);
    const keep = there.used;
    const plan = {
      there,
      bundle: undefined,
      keep,
      remove: there.places.filter((name) => !keep.includes(name)),
    };
    const isThere = there.current !== '' || plan.remove.length > 0;
    if (!isThere || !(await options.confirm(plan)))
      return { plan, isDone: false, place: there.current, removed: [], kept: keep };
    return { plan, isDone: true, place: '', ...removals(await shell.run(UNINSTALL)) };
  });
}

function inFarShell<T>(options: FarShellOptions, work: (shell: FarShell) => Promise<T>): Promise<T> {
  return orInterrupted(options.signal, () => withFarShell(options, PRELUDE, work));
}

function removals(answers: Answers): Pick<Change, 'removed' | 'kept'> {
  return { removed: answers.all('removed'), kept: answers.all('kept') };
}

async function bundleFor(there: Installed, given: string | undefined): Promise<Bundle> {
  const platform = platformOf(there);
  const bundle = await readBundle(findBundle(platform, given));
  if (bundle.platform === platform) return bundle;
  throw new SqlsyncError(
    'USAGE',
    `${sanitizeText(bundle.path, 300)} is for ${bundle.platform}; the other host is ${platform}`,
    { hint: `Name the bundle for ${platform}.` },
  );
}

function checkRoom({ freeBytes, home }: Installed, { neededBytes }: Bundle): void {
  // 0 if `df` did not answer.
  if (freeBytes === 0 || freeBytes >= neededBytes) return;
  const [free, needed] = [freeBytes, neededBytes].map((bytes) => Math.ceil(bytes / 1e6)) as [number, number];
  throw new SqlsyncError('SYSTEM_ERROR', `${home} there has room for ${free} MB; expected ${needed} MB`, {
    hint: 'Make room there, and run it again.',
  });
}

/** As `bring`; what did not arrive whole is removed at once, unless the shell there does it when it ends. */
async function bringWhole(...parts: Parameters<typeof bring>): Promise<string> {
  const [shell] = parts;
  try {
    return await bring(...parts);
  } catch (error) {
    await shell.run(DISCARD).catch(() => {});
    throw error;
  }
}

/** Sends a bundle, tries it, and lets the link lead to it. Returns its folder. */
async function bring(
  shell: FarShell,
  bundle: Bundle,
  onProgress: InstallOptions['onProgress'],
): Promise<string> {
  if ((await shell.run(PREPARE)).one('noexec') !== '')
    throw new SqlsyncError('SYSTEM_ERROR', 'The home folder there runs no programs: it is mounted noexec', {
      hint: 'Unpack the bundle in another folder there, and name it: --remote-exe DIR/bin/sqlsync.',
    });
  const { path, sizeBytes, version, sha256, contentBytes } = bundle;
  async function* bytes(): AsyncGenerator<Buffer> {
    let sentBytes = 0;
    for await (const chunk of createReadStream(path, { end: sizeBytes - 1, highWaterMark: 256 * 1024 })) {
      yield chunk as Buffer;
      onProgress?.((sentBytes += (chunk as Buffer).length), sizeBytes);
    }
  }
  const said = await shell.feed(unpack(sizeBytes), sizeBytes, bytes());
  const status = new Answers(said).one('status');
  const complaint = sanitizeText(said.replace(/^status=.*$/m, '').trim(), 1000);
  if (status !== '0') throw notUnpacked(`tar ended with status ${status}${complaint && `: ${complaint}`}`);
  const checked = await shell.run(CHECK);
  const arrived = Number(checked.one('bytes'));
  if (arrived !== contentBytes) throw notUnpacked(`${arrived} bytes were written; expected ${contentBytes}`);
  const answer = checked.one('version');
  if (answer !== version)
    throw new SqlsyncError('NODE_UNSUPPORTED', `sqlsync does not run there; it said: ${answer}`, {
      hint: 'It needs glibc 2.28, libstdc++ and libgcc_s (Debian: libstdc++6). Nothing was replaced.',
    });
  return (await shell.run(switchTo(version, sha256))).one('place');
}

function notUnpacked(why: string): SqlsyncError {
  return new SqlsyncError('SYSTEM_ERROR', `The bundle could not be unpacked there: ${why}`, {
    hint: 'Check the room and the quota of that user there. Nothing was replaced.',
  });
}
