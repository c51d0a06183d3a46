import type { Option, Options } from './options/command.ts';
import { ALWAYS, CONNECTION_OPTIONS, JOB_OPTIONS, OUTPUT_OPTIONS, SYNC_OPTIONS } from './options/options.ts';
import { ACCESS_OPTIONS } from './store/store-password.ts';
import { KEEP_OPTIONS } from './store/keep-policy.ts';
import { DATABASE_OPTIONS, TAG_OPTIONS } from './store/snapshot-choice.ts';

/** The options that several commands share, by their heading in help and in the manual. */
export const SHARED_OPTIONS: Readonly<Record<string, Options>> = {
  Copying: SYNC_OPTIONS,
  'What is kept': KEEP_OPTIONS,
  'Which snapshots': { ...DATABASE_OPTIONS, ...TAG_OPTIONS },
  'Encrypted stores': ACCESS_OPTIONS,
  Jobs: JOB_OPTIONS,
  Connection: CONNECTION_OPTIONS,
  Output: OUTPUT_OPTIONS,
  Always: ALWAYS,
};

/** The heading of the options of a single command. */
export const OWN_OPTIONS = 'Options';

/** The options of a command, including the common ones, by their headings. Pure. */
export function groupOptions(options: Options): Map<string, [name: string, option: Option][]> {
  const headings = Object.entries(SHARED_OPTIONS);
  return Map.groupBy(
    Object.entries({ ...options, ...ALWAYS }),
    ([name, option]) => headings.find(([, shared]) => shared[name] === option)?.[0] ?? OWN_OPTIONS,
  );
}

/** The syntax of an option: `-p, --port N`. */
export function optionSyntax(name: string, { alias, value, choices }: Option): string {
  const taken = choices?.join('|') ?? value;
  return `${alias === undefined ? '' : `-${alias}, `}--${name}${taken === undefined ? '' : ` ${taken}`}`;
}

export function describeOption({ describe, default: preset }: Option): string {
  return preset === undefined ? describe : `${describe} (default: ${preset})`;
}
