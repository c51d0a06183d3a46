import { execFileSync } from 'node:child_process';
import { mkdtempSync, readdirSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import Database from 'better-sqlite3';
import { Random } from '../fixtures/random.ts';
import type { SnapshotStatistics } from '../src/backup/types.ts';
import { prepareBase } from './data.ts';
import type { BenchData } from './data.ts';
import { measureProcess, median } from './measure.ts';
import type { Measured } from './measure.ts';
import { assertSamePages, copyToDisk } from './target.ts';

export interface BackupBenchOptions {
  readonly data: BenchData;
  readonly exe: string;
  readonly days: number;
  /** How often a restore and `.backup` take turns. */
  readonly runs: number;
}

/** Rounds of restic at most: each adds half a gigabyte. */
const RESTIC_DAYS = 3;

const CHILD = join(import.meta.dirname, 'backup-child.ts');

interface Day {
  readonly backup: Measured;
  readonly sync: Measured;
  readonly statistics: SnapshotStatistics;
  readonly resticBytes: number | undefined;
}

/** One full backup, then one a day after 1 % of the rows were changed, beside a sync of the same change. */
export async function backupSection(options: BackupBenchOptions): Promise<string> {
  const folder = mkdtempSync(join(tmpdir(), 'sqlsync-bench-'));
  try {
    return await measureIn(folder, options);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

async function measureIn(folder: string, { data, exe, days, runs }: BackupBenchOptions): Promise<string> {
  const [origin, replica, store, target] = ['origin.db', 'replica.db', 'store', 'restored.db'].map((name) =>
    join(folder, name),
  ) as [string, string, string, string];
  copyToDisk(prepareBase(data), origin);
  copyToDisk(origin, replica);
  await call('init', { store });
  const first = await call('backup', { origin, store });
  const firstBytes = bytesOf(store);
  const oldest = join(folder, 'oldest.db');
  copyToDisk(origin, oldest);
  const restic = hasRestic() ? join(folder, 'restic') : undefined;
  if (restic !== undefined) resticDay(origin, restic);
  const measured: Day[] = [];
  for (let day = 1; day <= days; day++) {
    changeRows(origin, data.rows, data.seed + day);
    const sync = await measureProcess(process.execPath, [exe, '--overwrite', '-q', origin, replica]);
    const backup = await call('backup', { origin, store });
    const resticBytes = restic !== undefined && day <= RESTIC_DAYS ? resticDay(origin, restic) : undefined;
    measured.push({ backup, sync, statistics: resultOf(backup) as SnapshotStatistics, resticBytes });
  }
  const ids = readdirSync(join(store, 'snapshots'));
  const checked = await call('check', { store });
  if (resultOf(checked) !== 0) throw new Error('the check found problems');
  const restores: Restores[] = [];
  for (const [which, id, expected] of [
    ['newest', 'latest', origin],
    ['oldest', oldestOf(store, ids), oldest],
  ] as const) {
    const rounds: Restores['rounds'][number][] = [];
    for (let run = 0; run < runs; run++) {
      rmSync(target, { force: true });
      const plain = await measureProcess('sqlite3', [expected, `.backup ${join(folder, 'plain.db')}`]);
      rmSync(join(folder, 'plain.db'));
      const restored = await call('restore', { store, snapshot: id, target });
      assertSamePages(expected, target);
      rounds.push({ plain, restored });
    }
    restores.push({ which, rounds });
  }
  return report({
    days: measured,
    first,
    firstBytes,
    storeBytes: bytesOf(store),
    fileBytes: statSync(origin).size,
    checked,
    restores,
  });
}

interface Findings {
  readonly days: readonly Day[];
  readonly first: Measured;
  readonly firstBytes: number;
  readonly storeBytes: number;
  readonly fileBytes: number;
  readonly checked: Measured;
  readonly restores: readonly Restores[];
}

/** A restore and `.backup` of the same database, in turn. */
interface Restores {
  readonly which: string;
  readonly rounds: readonly { readonly plain: Measured; readonly restored: Measured }[];
}

/**
 * The table shows this many days at the beginning and at the end by themselves: a backup must not take longer
 * the more there are.
 */
const EDGE_DAYS = 5;

function report({ days, first, firstBytes, storeBytes, fileBytes, checked, restores }: Findings): string {
  const added = days.map(({ statistics }) => statistics.bytesAdded);
  const restic = days.flatMap(({ resticBytes }) => resticBytes ?? []);
  const rows = [
    ['first backup', first, ''],
    nextBackups('next backup', days),
    nextBackups(`the first ${EDGE_DAYS} of them`, days.slice(0, EDGE_DAYS)),
    nextBackups(`the last ${EDGE_DAYS} of them`, days.slice(-EDGE_DAYS)),
    ...restores.map(
      ({ which, rounds }) =>
        [
          `restore of the ${which}`,
          middle(rounds.map(({ restored }) => restored)),
          ratio(
            rounds.map(({ plain, restored }) => restored.seconds / plain.seconds),
            '`.backup`',
          ),
        ] as const,
    ),
    ['check with all data', checked, ''],
  ] as const;
  const peaks = (all: readonly Measured[]): number => Math.max(...all.map(({ peakBytes }) => peakBytes ?? 0));
  return [
    `One full backup, then ${days.length} more, each after an UPDATE of 1 % of the rows, scattered; medians. CPU and memory are of the near process;`,
    `the most memory that any backup took were ${mb(peaks([first, ...days.map(({ backup }) => backup)]))} MB, any restore ${mb(peaks(restores.flatMap(({ rounds }) => rounds.map(({ restored }) => restored))))} MB.`,
    '',
    '| what | s | of | CPU s | MB of memory |',
    '| --- | ---: | ---: | ---: | ---: |',
    ...rows.map(
      ([what, { seconds, cpuSeconds, peakBytes }, of]) =>
        `| ${what} | ${seconds.toFixed(2)} | ${of} | ${cpuSeconds.toFixed(2)} | ${Math.round((peakBytes ?? 0) / 1e6)} |`,
    ),
    '',
    `The store has ${mb(firstBytes)} MB after the first backup and ${mb(storeBytes)} MB after the last: ${mb(median(added))} MB a day. ${days.length + 1} full copies are ${mb((days.length + 1) * fileBytes)} MB.`,
    ...(restic.length === 0
      ? []
      : [`restic, on files made by VACUUM INTO, adds ${mb(median(restic))} MB a day.`]),
  ].join('\n');
}

function nextBackups(what: string, days: readonly Day[]): readonly [string, Measured, string] {
  const ratios = days.map(({ backup, sync }) => backup.seconds / sync.seconds);
  return [what, middle(days.map(({ backup }) => backup)), ratio(ratios, 'a sync')];
}

function ratio(values: readonly number[], to: string): string {
  return `${median(values).toFixed(2)} × ${to}`;
}

export function mb(bytes: number): string {
  return (bytes / 1e6).toFixed(bytes < 1e8 ? 2 : 0);
}

function middle(all: readonly Measured[]): Measured {
  return all.toSorted((a, b) => a.seconds - b.seconds)[Math.floor(all.length / 2)] as Measured;
}

function call(name: string, options: Readonly<Record<string, unknown>>): Promise<Measured> {
  return measureProcess(process.execPath, [CHILD, name, JSON.stringify(options)]);
}

function resultOf({ stdout }: Measured): unknown {
  return (JSON.parse(stdout) as { result: unknown }).result;
}

export function changeRows(path: string, rows: number, seed: number): void {
  const random = new Random(seed);
  const db = new Database(path);
  db.pragma('synchronous = OFF');
  const update = db.prepare('UPDATE items SET amount = ? WHERE id = ?');
  db.transaction(() => {
    for (let i = 0; i < rows / 100; i++) update.run(random.next() * 1000, random.integer(1, rows));
  })();
  db.pragma('wal_checkpoint(TRUNCATE)');
  db.close();
}

/** The snapshot without a parent. */
function oldestOf(store: string, ids: readonly string[]): string {
  const script = `import { openStore } from ${JSON.stringify(join(import.meta.dirname, '../src/backup/store.ts'))};
    console.log((await (await openStore(${JSON.stringify(store)})).snapshots())[0].id)`;
  const oldest = execFileSync(process.execPath, ['--input-type=module', '-e', script], {
    encoding: 'utf8',
  }).trim();
  if (!ids.includes(oldest)) throw new Error('there are no snapshots');
  return oldest;
}

export function hasRestic(): boolean {
  try {
    execFileSync('restic', ['version'], { stdio: 'ignore' });
    return true;
  } catch {
    return false;
  }
}

/** Backs up one day with restic; returns by how many bytes its repository grew. */
function resticDay(origin: string, repository: string): number {
  const copy = `${origin}.vacuumed`;
  rmSync(copy, { force: true });
  execFileSync('sqlite3', [origin, `VACUUM INTO '${copy}'`]);
  const env = { ...process.env, RESTIC_PASSWORD: 'bench', RESTIC_REPOSITORY: repository };
  if (bytesOf(repository) === 0) execFileSync('restic', ['init', '-q'], { env });
  const before = bytesOf(repository);
  execFileSync('restic', ['backup', '-q', '--no-cache', copy], { env });
  rmSync(copy);
  return bytesOf(repository) - before;
}

/** The size of all files in a folder, in bytes. */
function bytesOf(folder: string): number {
  try {
    return readdirSync(folder, { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isFile())
      .reduce((sum, entry) => sum + statSync(join(entry.parentPath, entry.name)).size, 0);
  } catch {
    return 0;
  }
}
