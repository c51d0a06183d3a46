// Writes the part of docs/cli.md that comes from the tables of the commands: `npm run docs:cli`.
import { readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import type { Command, Option } from '../../src/cli/options/command.ts';
import { COMMAND_NAMES, loadCommands } from '../../src/cli/command-files.ts';
import {
  OWN_OPTIONS,
  SHARED_OPTIONS,
  describeOption,
  groupOptions,
  optionSyntax,
} from '../../src/cli/option-groups.ts';
import { wrapText } from '../../src/cli/terminal/wrap.ts';

export const MANUAL: string = join(dirname(dirname(import.meta.dirname)), 'docs', 'cli.md');

const BEGIN = '<!-- `npm run docs:cli` writes what follows -->';
const END = '<!-- end of what `npm run docs:cli` writes -->';

/** A terminal shows it without breaking lines. */
const COLUMNS = 100;

/** The manual with the reference of these commands in its place. Pure. */
export function withReference(manual: string, commands: readonly Command[]): string {
  const [before, rest] = manual.split(BEGIN);
  const after = rest?.split(END)[1];
  if (before === undefined || after === undefined)
    throw new Error(`${MANUAL} has not the lines ${BEGIN} … ${END}`);
  const groups = Map.groupBy(commands, ({ group = 'Commands that other programs start' }) => group);
  const shared = Object.entries(SHARED_OPTIONS).map(([heading, options]) =>
    [`### ${heading}`, optionList(Object.entries(options))].join('\n\n'),
  );
  const sections = [
    ...[...groups].map(([group, members]) => [`## ${group}`, ...members.map(describeCommand)].join('\n\n')),
    ['## Options of several commands', ...shared].join('\n\n'),
  ];
  return `${before}${BEGIN}\n\n${sections.join('\n\n')}\n\n${END}${after}`;
}

function describeCommand({ name, usage, describe, example, operands, options, summary }: Command): string {
  const groups = groupOptions(options);
  const own = groups.get(OWN_OPTIONS) ?? [];
  groups.delete(OWN_OPTIONS);
  const lists = [
    ...Object.entries(operands).map(([operand, text]) => item(`\`${operand}\`: ${text}.`)),
    ...own.map(describeEntry),
    ...[...groups].map(([heading, entries]) => {
      const names = entries.map(([option]) => `\`--${option}\``).join(', ');
      return item(`[${heading}](#${heading.toLowerCase().replaceAll(' ', '-')}): ${names}`);
    }),
  ];
  return [
    `### ${name}`,
    ['```sh', ...new Set([`sqlsync ${name} ${usage}`.trim(), example]), '```'].join('\n'),
    wrapText(`${describe}.`, COLUMNS),
    lists.join('\n'),
    ...(summary === undefined ? [] : [wrapText(`The summary of \`--json\` has ${summary}.`, COLUMNS)]),
  ].join('\n\n');
}

function optionList(entries: [string, Option][]): string {
  return entries.map(describeEntry).join('\n');
}

function describeEntry([name, option]: [string, Option]): string {
  return item(
    `\`${optionSyntax(name, option)}\`: ${[`${describeOption(option)}.`, option.more].join(' ').trim()}`,
  );
}

function item(text: string): string {
  return wrapText(`- ${text}`, COLUMNS, 2);
}

if (import.meta.main)
  writeFileSync(MANUAL, withReference(readFileSync(MANUAL, 'utf8'), await loadCommands(COMMAND_NAMES)));
