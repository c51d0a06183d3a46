/** A new replica that shares the blocks of its origin: on a file system with reflinks, in a file of its own. */
import { execFileSync, spawnSync } from 'node:child_process';
import { closeSync, ftruncateSync, mkdtempSync, openSync, rmSync, rmdirSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { prepareBase } from './data.ts';
import type { BenchData } from './data.ts';
import { measureProcess, median } from './measure.ts';
import { figure, table } from './results.ts';
import { settle } from './settle.ts';
import { assertSamePages, copyToDisk } from './target.ts';

export interface ReflinkOptions {
  readonly data: BenchData;
  readonly exe: string;
  readonly runs: number;
}

/** Room for the origin, two copies, and what XFS wants for itself. */
const DISK_COPIES = 4;
const DISK_MIN_BYTES = 400e6;

const WAYS = ['`.backup`', 'sqlsync', 'sqlsync `--reflink`'] as const;

export async function reflinkSection({ data, exe, runs }: ReflinkOptions): Promise<string> {
  const base = prepareBase(data);
  const disk = mountXfs(statSync(base).size);
  if (disk === undefined) return 'Not measured: only root can mount an XFS, and only with `mkfs.xfs`.';
  const seconds = new Map<string, number[]>(WAYS.map((way) => [way, []]));
  try {
    const [origin, target] = [join(disk, 'origin.db'), join(disk, 'replica.db')];
    copyToDisk(base, origin);
    const commands: Record<(typeof WAYS)[number], readonly [string, ...string[]]> = {
      '`.backup`': ['sqlite3', origin, `.backup ${target}`],
      sqlsync: [process.execPath, exe, '-q', origin, target],
      'sqlsync `--reflink`': [process.execPath, exe, '-q', '--reflink', origin, target],
    };
    for (let round = 0; round < runs; round++) {
      for (const way of round % 2 === 0 ? WAYS : WAYS.toReversed()) {
        for (const name of [target, join(disk, '.replica.db.sqlsync')]) rmSync(name, { force: true });
        execFileSync('sync');
        settle([origin]);
        const [program, ...args] = commands[way];
        const run = await measureProcess(program, args);
        assertSamePages(origin, target);
        seconds.get(way)?.push(run.seconds);
        console.error(`${way} ${round + 1}: ${run.seconds.toFixed(2)} s`);
      }
    }
  } finally {
    spawnSync('umount', ['--lazy', disk]);
    rmSync(`${disk}.img`);
    rmdirSync(disk);
  }
  const backup = seconds.get(WAYS[0]) ?? [];
  const rows = WAYS.map((way) => {
    const own = seconds.get(way) ?? [];
    return [way, figure(median(own), 2), figure(median(own.map((s, i) => s / (backup[i] ?? NaN))), 2)];
  });
  return `Medians of ${runs} rounds, ${data.rows.toLocaleString('en')} rows, on an XFS in a file: a new replica. The target of \`--reflink\` is 0.3. All pages are
compared, and those of the replica come from the disk: its blocks are the origin's, but the page cache has them only under the origin's name.

${table(['way', 's', 'of `.backup`'], rows)}`;
}

/** Returns the folder; undefined if this user cannot mount. */
function mountXfs(bytes: number): string | undefined {
  const folder = mkdtempSync(join(tmpdir(), 'sqlsync-bench-xfs-'));
  const image = `${folder}.img`;
  const file = openSync(image, 'wx');
  ftruncateSync(file, Math.max(DISK_MIN_BYTES, bytes * DISK_COPIES));
  closeSync(file);
  const made = spawnSync('mkfs.xfs', ['-q', '-m', 'reflink=1', image]);
  if (made.status === 0 && spawnSync('mount', ['-o', 'loop', image, folder]).status === 0) return folder;
  rmSync(image);
  rmdirSync(folder);
  return undefined;
}
