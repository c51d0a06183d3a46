import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { commandPath } from '../sync/program.ts';
import type { Command, Options } from './options/command.ts';
import { describeOption, groupOptions, optionSyntax } from './option-groups.ts';
import { columnsOf, padToColumns, wrapText } from './terminal/wrap.ts';

/** Wider lines are hard to read; a narrower terminal gets narrower lines. */
const MAX_COLUMNS = 80;

/** The widest name with its description on the same line. */
const MAX_NAME_COLUMNS = 26;

export const SHORT_HELP = `sqlsync ORIGIN REPLICA

Makes REPLICA an exact copy of ORIGIN, a live SQLite database, sending only
what differs. Either may be [user@]host:path, over SSH.

  sqlsync app.db copy.db
  sqlsync deploy@db1:/srv/app.db app.db
  sqlsync backup app.db /srv/store

All commands and options: sqlsync --help`;

export const DESCRIPTION: string = `sqlsync ORIGIN REPLICA

Makes REPLICA an exact copy of ORIGIN, a live SQLite database, sending only what differs. Either may be a path or [user@]host:path. Writers of ORIGIN do not wait.`;

export const EXAMPLES: readonly (readonly [line: string, what: string])[] = [
  ['sqlsync app.db copy.db', 'a local copy; run again, it sends what changed'],
  ['sqlsync deploy@db1:/srv/app.db app.db', 'pull over SSH'],
  ['sqlsync app.db backup@vault:app.db', 'push over SSH'],
  ['sqlsync -n app.db copy.db', 'only say what would change'],
  ['sqlsync verify app.db deploy@db1:/srv/app.db', 'compare, write nothing'],
  ['sqlsync backup app.db /srv/store', 'a snapshot more in a backup store'],
  ['sqlsync restore /srv/store#latest app.db', 'the newest snapshot of it'],
];

export const EPILOGUE: string = `A name that is a command is one where it stands first: a database called backup is ./backup. Every time T is a number of seconds, or 500ms, 30s, 5m, 2h, 1d.`;

/** Where this installation has the manual. */
const MANUAL = join(dirname(dirname(commandPath())), 'docs', 'cli.md');

/** The output of `sqlsync --help`; `main` is the command that needs no name. Pure. */
export function generalHelp(commands: readonly Command[], main: Command, columns: number): string {
  const layout = new Layout(columns);
  const groups = Map.groupBy(commands, ({ group = '' }) => group);
  return [
    layout.text(DESCRIPTION),
    layout.table('Examples', EXAMPLES, MAX_COLUMNS),
    ...[...groups].map(([group, members]) =>
      layout.table(
        group,
        members.map(({ name, usage, describe }) => [`sqlsync ${name} ${usage}`.trim(), describe] as const),
      ),
    ),
    ...layout.options(main.options),
    layout.text(EPILOGUE),
    ...(existsSync(MANUAL) ? [`Exit statuses and all else are in\n${MANUAL}`] : []),
  ].join('\n\n');
}

/** The output of `sqlsync COMMAND --help`. Pure. */
export function commandHelp(command: Command, columns: number): string {
  const layout = new Layout(columns);
  const operands = Object.entries(command.operands);
  return [
    `sqlsync ${command.name} ${command.usage}`.trim(),
    layout.text(command.describe),
    `Example:\n${wrapText(`  ${command.example}`, layout.columns, 4)}`,
    ...(operands.length === 0 ? [] : [layout.table('Operands', operands)]),
    ...layout.options(command.options),
  ].join('\n\n');
}

class Layout {
  readonly columns: number;

  constructor(columns: number) {
    this.columns = Math.min(MAX_COLUMNS, columns);
  }

  text(text: string): string {
    return wrapText(text, this.columns);
  }

  /** Names and descriptions in two columns; a long name has its own line. */
  table(
    title: string,
    rows: readonly (readonly [name: string, what: string])[],
    maxName: number = MAX_NAME_COLUMNS,
  ): string {
    const widths = rows.map(([name]) => columnsOf(name)).filter((width) => width <= maxName);
    const width = Math.min(Math.max(...widths, 0), Math.floor(this.columns / 2));
    const lines = rows.map(([name, what]) => {
      const indent = width + 4;
      const fits = columnsOf(name) <= width;
      const described = wrapText(' '.repeat(indent) + what, this.columns, indent).slice(indent);
      return fits
        ? `  ${padToColumns(name, width)}  ${described}`
        : `${wrapText(`  ${name}`, this.columns, 4)}\n${' '.repeat(indent)}${described}`;
    });
    return `${title}:\n${lines.join('\n')}`;
  }

  options(options: Options): string[] {
    return [...groupOptions(options)].map(([heading, entries]) =>
      this.table(
        heading,
        entries.map(([name, option]) => {
          const gap = option.alias === undefined ? '    ' : '';
          return [`${gap}${optionSyntax(name, option)}`, describeOption(option)] as const;
        }),
      ),
    );
  }
}
