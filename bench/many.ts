/** The section `many`: a folder of small databases to another host, beside rsync of the same folder. */
import { copyFileSync, mkdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import Database from 'better-sqlite3';
import { measureProcess, median } from './measure.ts';
import type { Measured } from './measure.ts';
import { figure, megabytes, table } from './results.ts';
import { sshRoute } from './route.ts';
import type { LinkSettings, Route } from './route.ts';
import { STAMPED_AFTER_MS } from './rounds.ts';
import { assertSamePages, WORK_DIR } from './target.ts';

export interface ManyOptions {
  exe: string;
  runs: number;
  syncArgs: readonly string[];
  /** How many databases. */
  databases: number;
}

/** Databases in one subfolder; over the slow line only one of them changes as a whole. */
const IN_FOLDER = 100;
const FEW = 10;
const ROWS = 2000;
const SLOW_LINE: LinkSettings = { rttMs: 100, bitsPerSecond: 50e6 };

const ORIGIN = join(WORK_DIR, 'many', 'origin');
const REPLICA = join(WORK_DIR, 'many', 'replica');
const RSYNCED = join(WORK_DIR, 'many', 'rsynced');

interface ManyCase {
  readonly name: string;
  readonly changed: number;
  /** The databases that are copied, and their folder in both places. */
  readonly databases: number;
  readonly below: string;
  readonly route: Route;
}

interface Scene {
  readonly paths: readonly string[];
  readonly options: ManyOptions;
}

export async function manySection(options: ManyOptions): Promise<string> {
  const near = await sshRoute(options.exe);
  const far = await sshRoute(options.exe, SLOW_LINE);
  const paths = makeDatabases(options.databases);
  const whole = { databases: paths.length, below: '' };
  const part = { databases: Math.min(IN_FOLDER, paths.length), below: '000' };
  const cases: ManyCase[] = [
    { name: 'new, 0 ms', changed: 0, ...whole, route: near },
    { name: 'unchanged, 0 ms', changed: 0, ...whole, route: near },
    { name: `${FEW} changed, 0 ms`, changed: FEW, ...whole, route: near },
    { name: 'all changed, 0 ms', changed: whole.databases, ...whole, route: near },
    { name: 'unchanged, 100 ms', changed: 0, ...whole, route: far },
    { name: `${FEW} changed, 100 ms`, changed: FEW, ...whole, route: far },
    { name: 'all changed, 100 ms', changed: part.databases, ...part, route: far },
  ];
  const rows: string[][] = [];
  try {
    for (const each of cases) rows.push(await measureCase(each, { paths, options }));
    for (const path of paths) assertSamePages(join(ORIGIN, path), join(REPLICA, path));
  } finally {
    rmSync(join(WORK_DIR, 'many'), { recursive: true, force: true });
    for (const route of [near, far]) await route.close();
  }
  const header = [
    'case',
    'databases',
    's',
    'ms each',
    '`rsync -rtz` s',
    'CPU s',
    'wire MB',
    'near MB',
    'far MB',
  ];
  return `Databases of 1 MB in WAL mode, ${IN_FOLDER} in a folder, sent to another host (sshd on the loopback interface) by \`--recursive\`: medians of ${options.runs} rounds, each with
one run of sqlsync and one of rsync. A change is an UPDATE of one row. "ms each" is the time for each database that changed; if none or all changed, for each database. Before each round a run
that is not measured compares what the last one changed, so that all stamps are known. CPU is that of both sides. 100 ms is a line of that
round trip and ${SLOW_LINE.bitsPerSecond / 1e6} Mbit/s (bench/link.ts). rsync copies files that nothing writes; it could not copy live databases.

${table(header, rows)}`;
}

type Sample = Measured & { readonly farCpuSeconds: number };

async function measureCase(benchCase: ManyCase, { paths, options }: Scene): Promise<string[]> {
  const { name, databases, changed, below, route } = benchCase;
  const syncs: Sample[] = [];
  const rsyncs: Measured[] = [];
  const isNew = name.startsWith('new');
  for (let round = 0; round < (isNew ? 1 : options.runs); round++) {
    if (!isNew) {
      await delay(STAMPED_AFTER_MS);
      await sync(benchCase, options);
    }
    update(paths.slice(0, changed), round);
    const [from, to] = [join(ORIGIN, below), join(RSYNCED, below)];
    syncs.push(await sync(benchCase, options));
    const rsync = ['-rt', ...route.rsyncOptions, `${from}/`, `${route.location(to)}/`];
    rsyncs.push(await measureProcess('rsync', rsync));
    console.error(
      `${name}: ${syncs.at(-1)?.seconds.toFixed(2)} s, rsync ${rsyncs.at(-1)?.seconds.toFixed(2)} s`,
    );
  }
  const seconds = median(syncs.map((each) => each.seconds));
  const summary = JSON.parse(syncs.at(-1)?.stdout.trim().split('\n').at(-1) ?? '{}') as Summary;
  if (summary.databases !== databases)
    throw new Error(`${name}: ${summary.databases} of ${databases} databases`);
  return [
    name,
    String(databases),
    figure(seconds, 2),
    figure((seconds * 1000) / (changed || databases), 1),
    figure(median(rsyncs.map((each) => each.seconds)), 2),
    figure(median(syncs.map((each) => each.cpuSeconds + each.farCpuSeconds)), 2),
    megabytes(summary.bytesSent + summary.bytesReceived),
    figure(median(syncs.map(({ peakBytes = NaN }) => peakBytes / 1e6)), 0),
    figure(median(syncs.map(({ childPeakBytes = NaN }) => childPeakBytes / 1e6)), 0),
  ];
}

async function sync({ below, route }: ManyCase, { exe, syncArgs }: ManyOptions): Promise<Sample> {
  route.far?.forget();
  const ends = [join(ORIGIN, below), route.location(join(REPLICA, below))];
  const args = [exe, '--recursive', ...ends, '--json', ...route.syncOptions, ...syncArgs];
  const measured = await measureProcess(process.execPath, args, { alsoSample: route.far?.pidFile });
  return { ...measured, farCpuSeconds: (await route.far?.cpuSeconds()) ?? 0 };
}

interface Summary {
  readonly databases: number;
  readonly bytesSent: number;
  readonly bytesReceived: number;
}

/** Returns their places in the folder. */
function makeDatabases(count: number): string[] {
  rmSync(join(WORK_DIR, 'many'), { recursive: true, force: true });
  const model = join(WORK_DIR, 'many', 'model.db');
  mkdirSync(join(WORK_DIR, 'many'), { recursive: true });
  mkdirSync(RSYNCED);
  const db = new Database(model);
  db.exec(`
    CREATE TABLE items (id INTEGER PRIMARY KEY, amount INTEGER NOT NULL, payload BLOB NOT NULL);
    WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < ${ROWS})
    INSERT INTO items SELECT n, 0, randomblob(450) FROM numbers;`);
  db.pragma('journal_mode = WAL');
  db.close();
  const pad = (number: number): string => String(number).padStart(3, '0');
  return Array.from({ length: count }, (_, i) => {
    const folder = pad(Math.floor(i / IN_FOLDER));
    mkdirSync(join(ORIGIN, folder), { recursive: true });
    const path = join(folder, `${pad(i % IN_FOLDER)}.db`);
    copyFileSync(model, join(ORIGIN, path));
    return path;
  });
}

function update(paths: readonly string[], round: number): void {
  for (const path of paths) {
    const db = new Database(join(ORIGIN, path));
    db.exec(`UPDATE items SET amount = amount + 1 WHERE id = ${1 + ((round * 700) % ROWS)}`);
    db.close();
  }
}
