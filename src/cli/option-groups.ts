import type { Option, Options } from './command.ts';
import { ALWAYS, CONNECTION_OPTIONS, JOB_OPTIONS, OUTPUT_OPTIONS, SYNC_OPTIONS } from './options.ts';
import { KEEP_OPTIONS } from './store/keep-policy.ts';
import { DATABASE_OPTIONS, TAG_OPTIONS } from './store/snapshot-choice.ts';

/** The options that several commands share, by the heading that help and the manual give them. */
export const SHARED_OPTIONS: Readonly<Record<string, Options>> = {
  Copying: SYNC_OPTIONS,
  'What is kept': KEEP_OPTIONS,
  'Which snapshots': { ...DATABASE_OPTIONS, ...TAG_OPTIONS },
  Jobs: JOB_OPTIONS,
  Connection: CONNECTION_OPTIONS,
  Output: OUTPUT_OPTIONS,
  Always: ALWAYS,
};

/** The heading of the options that only one command has. */
export const OWN_OPTIONS = 'Options';

/** The options of a command, those that all have included, by their headings. Pure. */
export function groupOptions(options: Options): Map<string, [name: string, option: Option][]> {
  const headings = Object.entries(SHARED_OPTIONS);
  return Map.groupBy(
    Object.entries({ ...options, ...ALWAYS }),
    ([name, option]) => headings.find(([, shared]) => shared[name] === option)?.[0] ?? OWN_OPTIONS,
  );
}

/** An option as it is written: `-p, --port N`. */
export function optionSyntax(name: string, { alias, value, choices }: Option): string {
  const taken = choices?.join('|') ?? value;
  return `${alias === undefined ? '' : `-${alias}, `}--${name}${taken === undefined ? '' : ` ${taken}`}`;
}

export function describeOption({ describe, default: preset }: Option): string {
  return preset === undefined ? describe : `${describe} (default: ${preset})`;
}
