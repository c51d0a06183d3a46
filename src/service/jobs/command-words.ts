import { CONNECTION_OPTIONS } from '../../cli/options/options.ts';
import type { OptionValue } from '../config/schema.ts';
import type { Job } from './job.ts';

/** How long a run waits for one that an earlier service left behind. */
const LOCK_WAIT = '--lock-wait=10m';

/** The words of the command that makes the copy. Pure. */
export function copyWords({ origin, target }: Job): string[] {
  const { kind, place, prune } = target;
  const words = kind === 'store' ? ['backup'] : ['sync'];
  const keep = kind === 'store' ? prefixed('keep-', target.keep) : {};
  return [
    ...words,
    LOCK_WAIT,
    '--json',
    ...optionWords({ ...target.options, ...keep, ...(prune ? { prune } : {}) }),
    ...passwordWords(target),
    '--',
    origin,
    place,
  ];
}

/** The words of the command that makes a new database of the newest copy. Pure. */
export function restoreWords({ target }: Job, snapshot: string | undefined, to: string): string[] {
  const { kind, place, options } = target;
  const connection = Object.fromEntries(
    Object.entries(options).filter(([name]) => Object.hasOwn(CONNECTION_OPTIONS, name)),
  );
  const from = kind === 'store' ? `${place}#${snapshot ?? 'latest'}` : place;
  const verb = kind === 'store' ? 'restore' : 'sync';
  return [verb, '--json', ...optionWords(connection), ...passwordWords(target), '--', from, to];
}

function passwordWords({ passwordFile, passwordCommand }: Job['target']): string[] {
  if (passwordFile !== undefined) return [`--password-file=${passwordFile}`];
  return passwordCommand === undefined ? [] : [`--password-command=${passwordCommand}`];
}

function optionWords(options: Readonly<Record<string, OptionValue>>): string[] {
  return Object.entries(options).flatMap(([name, value]) => {
    if (typeof value === 'boolean') return [value ? `--${name}` : `--no-${name}`];
    return [value].flat().map((each) => `--${name}=${each}`);
  });
}

function prefixed<T>(prefix: string, fields: Readonly<Record<string, T>>): Record<string, T> {
  return Object.fromEntries(Object.entries(fields).map(([name, value]) => [`${prefix}${name}`, value]));
}
