/**
 * `npm run bench`: measures sqlsync on this machine beside the other tools that a person has, and writes
 * bench/RESULTS.md. README.md, beside this file, has the options.
 */
import { rmSync } from 'node:fs';
import { join, relative } from 'node:path';
import { parseArgs } from 'node:util';
import { backupSection } from './backup.ts';
import { firstSection, linkSection, localSection, sshSection, startSection } from './copies.ts';
import type { CopyOptions } from './copies.ts';
import { CASE_NAMES, rowsOfSize } from './data.ts';
import { doctorSection } from './doctor.ts';
import { FOLLOW_PLACES, followSection } from './follow.ts';
import { manySection } from './many.ts';
import { MEMORY_SIZES, memorySection } from './memory.ts';
import { poolsSection } from './pools.ts';
import { reflinkSection } from './reflink.ts';
import { SECTIONS, writeSection } from './results.ts';
import type { SectionName } from './results.ts';
import { storesSection } from './stores.ts';
import { WORK_DIR } from './target.ts';
import { peerTool, TOOL_NAMES } from './tools.ts';
import { transportsSection } from './transports.ts';
import { writerSection } from './writer.ts';

const ROOT = join(import.meta.dirname, '..');
const SECTION_NAMES = Object.keys(SECTIONS) as SectionName[];
/** All but the one that reads 100 GB. */
const USUAL_SECTIONS: readonly SectionName[] = [
  'first',
  'local',
  'reflink',
  'start',
  'ssh',
  'link',
  'transports',
  'many',
  'writer',
  'follow',
  'pools',
  'doctor',
  'backup',
];
const WAYS = ['local', 'ssh', 'link'] as const;
/** In place of a case: the section `memory`. */
const SPARSE_CASE = 'sparse50';

async function main(): Promise<void> {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      sections: { type: 'string' },
      over: { type: 'string' },
      cases: { type: 'string' },
      runs: { type: 'string', default: '5' },
      size: { type: 'string', default: '1.05GB' },
      seed: { type: 'string', default: '1' },
      compare: { type: 'string' },
      peer: { type: 'string', multiple: true, default: [] },
      databases: { type: 'string', default: '1000' },
      days: { type: 'string', default: '30' },
      places: { type: 'string', default: FOLLOW_PLACES.join() },
      rates: { type: 'string', default: '1,20,200,1000,5000' },
      seconds: { type: 'string', default: '20' },
      journal: { type: 'string', default: 'wal,delete' },
      exe: { type: 'string', default: join(ROOT, 'bin', 'sqlsync.js') },
      output: { type: 'string', default: join(import.meta.dirname, 'RESULTS.md') },
    },
  });
  const runs = Number(values.runs);
  if (!Number.isInteger(runs) || runs < 1)
    throw new Error(`--runs ${values.runs}: expected a whole number from 1`);
  const cases = listOf([...CASE_NAMES, SPARSE_CASE] as const, values.cases);
  const copies: CopyOptions = {
    data: { rows: rowsOfSize(values.size), seed: Number(values.seed) },
    cases: cases?.filter((name) => name !== SPARSE_CASE),
    runs,
    exe: values.exe,
    syncArgs: positionals,
    tools: listOf(TOOL_NAMES, values.compare),
    peers: values.peer.map(peerTool),
  };
  const journals = listOf(['wal', 'delete'] as const, values.journal) ?? [];
  const measure: Record<SectionName, () => Promise<string>> = {
    first: () => firstSection(copies),
    local: () => localSection(copies),
    reflink: () => reflinkSection(copies),
    start: () => startSection(copies),
    ssh: () => sshSection(copies),
    link: () => linkSection(copies),
    transports: () => transportsSection(copies),
    many: () => manySection({ ...copies, databases: Number(values.databases) }),
    writer: () => writerSection({ ...copies, rounds: runs, journals }),
    doctor: () => doctorSection({ exe: values.exe, rounds: runs, journals }),
    follow: () =>
      followSection({
        ...copies,
        places: listOf(FOLLOW_PLACES, values.places) ?? [],
        rates: values.rates.split(',').map(Number),
        seconds: Number(values.seconds),
      }),
    pools: () => poolsSection({ exe: values.exe }),
    backup: () => backupSection({ ...copies, days: Number(values.days) }),
    stores: () => storesSection({ ...copies, days: Number(values.days) }),
    memory: () => memorySection({ ...copies, sizes: MEMORY_SIZES }),
  };
  try {
    for (const name of sectionsOf(values, cases)) {
      const body = await measure[name]();
      writeSection(values.output, name, body, commandLine());
      console.log(`\n## ${SECTIONS[name]}\n\n${body}\n`);
    }
  } finally {
    rmSync(WORK_DIR, { recursive: true, force: true });
  }
}

/**
 * The user may name sections by themselves, by the way to the origin, or by cases that only some of them
 * have.
 */
function sectionsOf(
  values: { sections?: string | undefined; over?: string | undefined },
  cases: readonly string[] | undefined,
): readonly SectionName[] {
  const sparse = cases?.includes(SPARSE_CASE) === true;
  const copies = cases === undefined || cases.some((name) => name !== SPARSE_CASE);
  const named: readonly SectionName[] = [
    ...(listOf(SECTION_NAMES, values.sections) ?? []),
    ...(listOf(WAYS, values.over) ?? []),
  ];
  const usual = named.length > 0 ? named : cases === undefined ? USUAL_SECTIONS : copies ? WAYS : [];
  return SECTION_NAMES.filter((name) => usual.includes(name) || (sparse && name === 'memory'));
}

function listOf<T extends string>(choices: readonly T[], list: string | undefined): T[] | undefined {
  return list
    ?.split(',')
    .filter(Boolean)
    .map((value) => oneOf(choices, value));
}

function oneOf<T extends string>(choices: readonly T[], value: string): T {
  const choice = choices.find((candidate) => candidate === value);
  if (choice === undefined) throw new Error(`${value}: expected one of ${choices.join(', ')}`);
  return choice;
}

function commandLine(): string {
  const args = process.argv.slice(2).map((arg) => (arg.startsWith(ROOT) ? relative(ROOT, arg) : arg));
  return ['npm run bench', ...(args.length > 0 ? ['--', ...args] : [])].join(' ');
}

try {
  await main();
} catch (error) {
  if (!(error instanceof TypeError && 'code' in error)) throw error;
  process.stderr.write(`${error.message}\nbench/README.md has the options.\n`);
  process.exitCode = 2;
}
