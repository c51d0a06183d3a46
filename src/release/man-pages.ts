/**
 * The manual pages, `sqlsync(1)` and one for each command for people, made of the tables of which `--help` and
 * docs/cli.md are made: `npm run build:man` writes them to `dist/man/`. In mdoc, which both groff and mandoc read.
 */
import { mkdirSync, realpathSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Command, Option } from '../cli/options/command.ts';
import { PUBLIC_COMMAND_NAMES, loadCommands } from '../cli/command-files.ts';
import { describeOption, groupOptions } from '../cli/option-groups.ts';
import { DESCRIPTION, EPILOGUE, EXAMPLES } from '../cli/help.ts';
import { PROGRAM } from '../sync/program.ts';
import { packageRoot } from '../sqlite/binding-path.ts';

const EXIT_STATUS = `The status is 0 after success, and 1 where
.Cm verify
found a difference or
.Cm doctor
something wrong. Every error has a status of its own: the list is in
.Pa docs/cli.md
of the package.`;

/** The pages by their file names. @param date As `2026-12-31`. Pure. */
export function manPages(commands: readonly Command[], date: string): Map<string, string> {
  const names = commands.map(({ name }) => `sqlsync-${name}`);
  return new Map([
    ['sqlsync.1', page('sqlsync', 'copy a live SQLite database exactly', date, overview(commands), names)],
    ...commands.map((command) => {
      const name = `sqlsync-${command.name}`;
      const text = page(name, command.describe, date, sectionsOf(command), ['sqlsync']);
      return [`${name}.1`, text] as const;
    }),
  ]);
}

function page(name: string, what: string, date: string, body: string, others: readonly string[]): string {
  return `.Dd ${date}
.Dt ${name.toUpperCase()} 1
.Os ${PROGRAM}
.Sh NAME
.Nm ${name}
.Nd ${prose(what.charAt(0).toLowerCase() + what.slice(1))}
${body}
.Sh EXIT STATUS
${EXIT_STATUS}
.Sh SEE ALSO
${others.map((other) => `.Xr ${other} 1`).join(' ,\n')}
`;
}

function overview(commands: readonly Command[]): string {
  const [usage = '', ...paragraphs] = DESCRIPTION.split('\n\n');
  const listed = commands.map(({ name, describe }) => `.It Cm ${name}\n${prose(describe)}.`);
  return `.Sh SYNOPSIS
${usage
  .split('\n')
  .map((line) => `.Dl ${literal(line)}`)
  .join('\n')}
.Sh DESCRIPTION
${[...paragraphs, EPILOGUE].map(prose).join('\n.Pp\n')}
.Sh COMMANDS
.Bl -tag -width completion
${listed.join('\n')}
.El
.Sh EXAMPLES
.Bl -tag -width Ds
${EXAMPLES.map(([line, what]) => `.It Li "${literal(line)}"\n${prose(what)}`).join('\n')}
.El`;
}

function sectionsOf({ name, usage, describe, example, operands, options }: Command): string {
  const operandList = Object.entries(operands).map(
    ([operand, text]) => `.It Ar ${literal(operand)}\n${prose(text)}.`,
  );
  const groups = [...groupOptions(options)].map(
    ([heading, entries]) => `.Ss ${heading}\n.Bl -tag -width Ds\n${entries.map(optionItem).join('\n')}\n.El`,
  );
  return `.Sh SYNOPSIS
.Dl ${literal(`sqlsync ${name} [options] ${usage}`.trim())}
.Sh DESCRIPTION
${prose(describe)}.
${operandList.length === 0 ? '' : `.Bl -tag -width Ds\n${operandList.join('\n')}\n.El\n`}.Sh OPTIONS
${groups.join('\n')}
.Sh EXAMPLES
.Dl ${literal(example)}`;
}

function optionItem([name, option]: [string, Option]): string {
  const { alias, value, choices, more } = option;
  const taken = choices?.join('|') ?? value;
  const names = `${alias === undefined ? '' : `Fl ${alias} , `}Fl Fl ${literal(name)}`;
  const text = [`${describeOption(option)}.`, more].join(' ').trim();
  return `.It ${names}${taken === undefined ? '' : ` Ar "${literal(taken)}"`}\n${prose(text)}`;
}

/** Text with `code` and [links](to a page) as text for mdoc. A link keeps its words only. */
function prose(text: string): string {
  const plain = text.replaceAll(/\[([^\]]*)\]\([^)]*\)/g, '$1');
  return literal(plain).replaceAll(/`([^`]*)`/g, String.raw`\fB$1\fR`);
}

/**
 * No character of it is a command of roff, or missing on a terminal with ASCII. A hyphen stays one when it is copied out
 * of the page.
 */
function literal(text: string): string {
  return text
    .replaceAll('\\', String.raw`\e`)
    .replaceAll('"', String.raw`\(dq`)
    .replaceAll('-', String.raw`\-`)
    .replaceAll('…', '...')
    .replaceAll(/^[.']/gm, String.raw`\&$&`);
}

/** Writes all pages. The date is that of the build, or of SOURCE_DATE_EPOCH, in seconds. */
export async function writeManPages(folder: string): Promise<void> {
  const epoch = process.env['SOURCE_DATE_EPOCH'];
  const date = new Date(epoch === undefined ? Date.now() : Number(epoch) * 1000).toISOString().slice(0, 10);
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { recursive: true });
  for (const [name, text] of manPages(await loadCommands(PUBLIC_COMMAND_NAMES), date)) {
    writeFileSync(join(folder, name), text);
  }
}

const [, program] = process.argv;
// Not `import.meta.main`, which the oldest supported Node.js may lack.
if (program !== undefined && realpathSync(program) === import.meta.filename) {
  await writeManPages(join(packageRoot(), 'dist', 'man'));
}
