import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { cpus, release, totalmem, type } from 'node:os';

/** The sections of RESULTS.md in their order. A run replaces those that it measured and keeps the others. */
export const SECTIONS = {
  first: 'The first copy: local, over SSH, over a line of 1 Gbit/s',
  local: 'Local to local',
  reflink: 'A new replica with reflinks',
  start: 'Start-up: a database of 1 MB, local to local',
  ssh: 'Over SSH on the loopback interface',
  link: 'Over SSH on a slow line',
  transports: 'The SSH that is built in, beside OpenSSH',
  many: 'Many databases: a folder to another host',
  writer: 'A writer on the origin',
  follow: 'Following: how far a copy is behind',
  pools: 'Pools: writers on one database',
  doctor: 'A writer beside doctor --watch',
  backup: 'Backups with history',
  stores: 'Stores elsewhere: S3, near and far, beside restic',
  memory: 'Memory: a database of 50 GB',
} as const;

export type SectionName = keyof typeof SECTIONS;

const TITLE = '# Benchmark results';
const INTRODUCTION = `${TITLE}

How each section was measured stands below its title. Files are in the page cache; seconds are from the start of the process to its exit;
kB, MB and GB are powers of 10. A ratio below 1 means that sqlsync takes less: the median of the ratios within the rounds.
\`npm run bench\` makes the databases and measures everything again but the last section; bench/README.md has the options.`;

/** Put the section in its place, with the date, the machine and the command. */
export function writeSection(path: string, name: SectionName, body: string, command: string): void {
  const sections = existsSync(path) ? readSections(readFileSync(path, 'utf8')) : new Map<string, string>();
  sections.set(SECTIONS[name], `- ${[...machine(), `\`${command}\``].join('\n- ')}\n\n${body.trim()}`);
  const ordered = Object.values(SECTIONS).flatMap((title) => {
    const text = sections.get(title);
    return text === undefined ? [] : [`## ${title}\n\n${text}`];
  });
  writeFileSync(path, `${[INTRODUCTION, ...ordered].join('\n\n')}\n`);
}

function readSections(text: string): Map<string, string> {
  const [, ...parts] = text.split(/^## /m);
  return new Map(
    parts.map((part) => {
      const end = part.indexOf('\n');
      return [part.slice(0, end), part.slice(end).trim()];
    }),
  );
}

function machine(): string[] {
  const shell = execFileSync('sqlite3', ['-version'], { encoding: 'utf8' }).split(' ')[0] ?? '';
  const [cpu] = cpus();
  return [
    `${new Date().toISOString().slice(0, 10)}, commit ${commit()}, ${cpus().length} cores (${cpu?.model.trim() ?? 'unknown'}), ` +
      `${(totalmem() / 2 ** 30).toFixed(0)} GiB of memory, ${type()} ${release()}, ` +
      `Node ${process.versions.node}, sqlite3 shell ${shell}`,
  ];
}

/** The commit that was measured. */
function commit(): string {
  const git = (...args: string[]): string =>
    execFileSync('git', args, { cwd: import.meta.dirname, encoding: 'utf8' }).trim();
  const isChanged = git('status', '--porcelain', '--', '../src', '../protocol') !== '';
  return git('rev-parse', '--short', 'HEAD') + (isChanged ? ' with changes' : '');
}

/** A Markdown table; the first column is text, the others are numbers. */
export function table(header: readonly string[], body: readonly (readonly string[])[]): string {
  const widths = header.map((_, column) =>
    Math.max(...[header, ...body].map((cells) => cells[column]?.length ?? 0), 3),
  );
  const pad = (text: string, column: number): string => {
    const width = widths[column] ?? 0;
    return column === 0 ? text.padEnd(width) : text.padStart(width);
  };
  const line = (cells: readonly string[]): string => `| ${cells.map(pad).join(' | ')} |`;
  const rule = widths.map((width, column) =>
    column === 0 ? '-'.repeat(width) : `${'-'.repeat(width - 1)}:`,
  );
  return [line(header), `| ${rule.join(' | ')} |`, ...body.map(line)].join('\n');
}

export function figure(value: number | undefined, digits: number): string {
  return value === undefined || Number.isNaN(value) ? '–' : value.toFixed(digits);
}

/** Decimal megabytes, with as many digits as kilobytes need where there are few. */
export function megabytes(bytes: number | undefined): string {
  return figure(bytes && bytes / 1e6, bytes !== undefined && bytes < 1e6 ? 4 : 2);
}
