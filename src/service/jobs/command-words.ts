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
  const { kind, place } = target;
  const from = kind === 'store' ? `${place}#${snapshot ?? 'latest'}` : place;
  const verb = kind === 'store' ? 'restore' : 'sync';
  return [verb, '--json', ...accessWords(target), '--', from, to];
}

/**
 * The words of the command that reports on the target: on the database of a snapshot, or on what differs between
 * database and replica. Pure.
 *
 * @param maxBytes - tables of larger databases are not measured.
 */
export function reportWords(
  { origin, target }: Job,
  snapshot: string | undefined,
  maxBytes: number,
): string[] {
  const { kind, place } = target;
  const sides = kind === 'store' ? [`${place}#${snapshot ?? 'latest'}`] : [origin, place];
  return [
    'report',
    '--json',
    '--measure=4',
    `--max-size=${maxBytes}`,
    ...accessWords(target),
    '--',
    ...sides,
  ];
}

function accessWords(target: Job['target']): string[] {
  const connection = Object.fromEntries(
    Object.entries(target.options).filter(([name]) => Object.hasOwn(CONNECTION_OPTIONS, name)),
  );
  return [...optionWords(connection), ...passwordWords(target)];
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
