import type { Facts } from '../facts.ts';
import type { Finding } from '../finding.ts';
import { finding, mayUseWal, processInWords, processesInWords, shellWord, sqliteLine } from './words.ts';
import { megabytes } from './wal.ts';

/** The share of the file that VACUUM gives back, from which it is worth its time; and the least of bytes. */
const VACUUM_SHARE = 0.25;
const VACUUM_BYTES = 10e6;

/** Where the file lies, how programs have it open, and how it is set. */
export function judgeSettings(facts: Facts): Finding[] {
  return [...names(facts), ...place(facts), ...libraries(facts), ...modes(facts), ...space(facts)];
}

function names(facts: Facts): Finding[] {
  const found: Finding[] = [];
  for (const process of facts.processes) {
    const who = processInWords(facts, process.pid);
    if (process.hasDeletedFile)
      found.push(
        finding(
          'danger',
          'deleted-file',
          `${who} has a file open that was deleted or replaced under this name`,
          {
            meaning:
              'What it writes is lost as soon as it closes the file; if the other file shares the -wal, both are damaged.',
            mend: `Restart PID ${process.pid}. To put a database in the place of another, use \`sqlsync copy.db app.db --overwrite\`, never mv or cp.`,
          },
        ),
      );
    if (process.hasOtherWal)
      found.push(
        finding('danger', 'other-wal', `${who} has this database open with another -wal or -shm`, {
          meaning:
            'It opened the file by another name (a hard link, a file mounted by itself): its locks and its commits do not reach the others, and both damage the file.',
          mend: `Stop PID ${process.pid}${process.otherName === undefined ? '' : ` (it uses ${shellWord(process.otherName)})`}, and let all programs use one path. Mount the folder, not the file.`,
        }),
      );
  }
  return found;
}

function place(facts: Facts): Finding[] {
  const { database, header, path } = facts;
  const isWal = header?.isWal === true;
  const found: Finding[] = [];
  if (database.isNetwork)
    found.push(
      finding(
        isWal ? 'danger' : 'advice',
        'network',
        `The database is on a network file system (${database.fileSystem})`,
        {
          meaning: isWal
            ? 'WAL needs memory that all its processes share: as soon as two machines have it open, it is damaged.'
            : 'SQLite trusts the locks of the file system, and those of network file systems are often broken.',
          mend: 'Keep the database on a local disk, and copy it elsewhere: sqlsync app.db host:/srv/app.db',
        },
      ),
    );
  if (database.fileSystem === 'overlay')
    found.push(
      finding('advice', 'overlay', 'The database is in the layers of a container (overlay)', {
        meaning:
          'It goes with the container. A file of the image is copied at the first write, and programs that had it open before go on with the old one.',
        mend: 'Keep it in a volume: docker run -v data:/data …',
      }),
    );
  if (database.hardLinks > 1)
    found.push(
      finding(
        isWal ? 'danger' : 'advice',
        'hard-links',
        `The file has ${database.hardLinks} names (hard links)`,
        {
          meaning:
            'The -wal and the journal have the name by which a program opened the file: two programs with two names do not see each other’s, and damage it.',
          mend: `find the others: find / -xdev -samefile ${shellWord(path)}; and remove all but one`,
        },
      ),
    );
  if (database.isMountedAlone && isWal)
    found.push(
      finding('danger', 'mounted-alone', 'The file is mounted by itself, without its folder', {
        meaning: 'Its -wal and -shm lie in another folder here than for programs outside, which damages it.',
        mend: 'Mount the folder of the database into the container, not the file.',
      }),
    );
  return found;
}

function libraries(facts: Facts): Finding[] {
  return facts.processes
    .filter((process) => process.libraries.length > 1)
    .map((process) =>
      finding(
        'advice',
        'several-libraries',
        `${processInWords(facts, process.pid)} has several SQLite libraries loaded`,
        {
          meaning: `${process.libraries.join(' and ')}: if two of them open this database, each drops the locks of the other when it closes the file (POSIX locks), and the database is damaged.`,
          mend: 'Open a database with one library per process; the other one in a child process.',
        },
      ),
    );
}

function modes(facts: Facts): Finding[] {
  const { header, database, processes } = facts;
  if (header === undefined) return [];
  const found: Finding[] = [];
  const others = processes.map(({ pid }) => pid);
  if (!header.isWal && others.length > 1)
    found.push(
      finding('advice', 'rollback-shared', `${others.length} processes share a database in rollback mode`, {
        meaning: `${processesInWords(facts, others)}: readers keep the writer waiting, and the writer keeps the readers waiting.`,
        mend: mayUseWal(facts)
          ? sqliteLine(facts, 'PRAGMA journal_mode = WAL')
          : 'Keep transactions short, and set a busy_timeout in each program. WAL mode would help, but only on a local disk, with one name of the file and with its whole folder.',
      }),
    );
  if (header.isWal && hasResetBug(header.sqliteVersion))
    found.push(
      finding(
        'advice',
        'wal-reset-bug',
        `The last writer was SQLite ${versionInWords(header.sqliteVersion)}, which can damage a WAL`,
        {
          meaning:
            'From 3.7.0 to 3.51.2, a commit beside the restart of a WAL by another connection can be lost and damage the database (the WAL-reset bug). It is rare.',
          mend: 'Update SQLite to 3.51.3 or newer in each program that writes this database (distributions may have mended older ones).',
        },
      ),
    );
  if (header.autoVacuum === 'full')
    found.push(
      finding('advice', 'auto-vacuum-full', 'auto_vacuum is FULL', {
        meaning:
          'Each commit moves pages from the end of the file into free ones: more writes, and a file in disorder.',
        mend: sqliteLine(facts, 'PRAGMA auto_vacuum = INCREMENTAL'),
      }),
    );
  if (header.pageSize < database.blockBytes && database.blockBytes <= 4096)
    found.push(
      finding(
        'advice',
        'small-pages',
        `Pages have ${header.pageSize} bytes, blocks of the file system ${database.blockBytes}`,
        {
          meaning: 'Each write of a page is a read and a write of a block.',
          mend: sqliteLine(
            facts,
            `PRAGMA journal_mode = DELETE; PRAGMA page_size = ${database.blockBytes}; VACUUM${header.isWal ? '; PRAGMA journal_mode = WAL' : ''}`,
          ),
        },
      ),
    );
  const mapped = processes.filter(({ isMapped }) => isMapped).map(({ pid }) => pid);
  if (mapped.length > 0)
    found.push(
      finding(
        'advice',
        'memory-mapped',
        `${processesInWords(facts, mapped)} reads through a memory map (mmap_size)`,
        {
          meaning:
            'An error of the disk, or a file that is cut off, then kills the program (SIGBUS) instead of being an error of SQLite.',
          mend: 'PRAGMA mmap_size = 0, unless it was measured to be faster here.',
        },
      ),
    );
  return found;
}

function hasResetBug(version: number): boolean {
  return version >= 3_007_000 && version <= 3_051_002;
}

function versionInWords(version: number): string {
  return [version / 1e6, (version / 1e3) % 1e3, version % 1e3].map((part) => Math.floor(part)).join('.');
}

function space(facts: Facts): Finding[] {
  const { header, database, full } = facts;
  if (header === undefined || database.bytes === 0) return [];
  const bytes =
    full === undefined || full.sizes.length === 0 ? header.freePages * header.pageSize : full.vacuumBytes;
  if (bytes < VACUUM_BYTES || bytes / database.bytes < VACUUM_SHARE) return [];
  const percent = Math.round((bytes / database.bytes) * 100);
  return [
    finding(
      'advice',
      'much-free',
      `${megabytes(bytes)} of ${megabytes(database.bytes)} hold nothing (${percent} %)`,
      {
        meaning: 'SQLite uses free pages again, but never makes the file smaller by itself.',
        mend: `${sqliteLine(facts, 'VACUUM')} (it needs as much room again, and the writer’s lock)`,
      },
    ),
  ];
}
