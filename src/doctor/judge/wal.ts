import type { Facts, FileFacts, WalState } from '../facts.ts';
import type { Finding } from '../finding.ts';
import { finding, holdersOf, locksNamed, processesInWords, shellWord, sqliteLine } from './words.ts';

/** Frames after which SQLite checkpoints by itself. */
const AUTOCHECKPOINT_FRAMES = 1000;

/** A WAL of so many frames that is checkpointed, and read, was not begun anew for long. */
const UNRESTARTED_FRAMES = 10 * AUTOCHECKPOINT_FRAMES;
const RESTART_LOCKS = ['READ1', 'READ2', 'READ3', 'READ4'] as const;

/** A WAL of this size is no longer that of ordinary transactions. */
const LARGE_WAL_BYTES = 64 * 1024 * 1024;

const OTHERS_WRITE = 0o022;

/** What keeps a WAL from being emptied, and what lies beside the database. */
export function judgeWal(facts: Facts): Finding[] {
  return [
    ...oddFiles(facts),
    ...foreignFiles(facts),
    ...emptied(facts),
    ...leftovers(facts),
    ...growth(facts),
  ];
}

/** How far a checkpoint could go now, and the processes that stop it there. */
export function checkpointLimit(facts: Facts, state: WalState): { frame: number; by: number[] } {
  let frame = state.frames;
  let by: number[] = [];
  for (const [i, mark] of state.readMarks.entries()) {
    const name = (['READ0', 'READ1', 'READ2', 'READ3', 'READ4'] as const)[i];
    if (name === undefined || mark === null) continue;
    const readers = locksNamed(facts, [name], true).filter(({ isExclusive }) => !isExclusive);
    // Readers of mark 0 read the file alone, so that no checkpoint may write to it.
    const limit = i === 0 ? state.checkpointed : Math.max(mark, state.checkpointed);
    if (readers.length === 0 || limit > frame || limit === state.frames) continue;
    const pids = readers.map(({ pid }) => pid);
    by = limit < frame ? pids : [...new Set([...by, ...pids])];
    frame = limit;
  }
  return { frame, by };
}

function growth(facts: Facts): Finding[] {
  const { state, file } = facts.wal;
  if (state === undefined) return [];
  const { frame, by } = checkpointLimit(facts, state);
  const behind = state.frames - frame;
  if (by.length > 0 && behind >= AUTOCHECKPOINT_FRAMES) return [pinned(facts, state, frame, by)];
  const open = state.frames - state.checkpointed;
  const overlapping = holdersOf(facts, RESTART_LOCKS);
  if (overlapping.length > 0 && state.frames >= UNRESTARTED_FRAMES && open < 2 * AUTOCHECKPOINT_FRAMES)
    return [notRestarted(facts, state, overlapping)];
  if (open >= 2 * AUTOCHECKPOINT_FRAMES && by.length === 0)
    return [
      finding('advice', 'wal-not-checkpointed', `${open} frames of the WAL were not checkpointed`, {
        meaning:
          'No reader stopped a checkpoint all the time, so none runs: the program has turned wal_autocheckpoint off or made it large. Reads get slower, and the file grows.',
        mend: sqliteLine(facts, 'PRAGMA wal_checkpoint(TRUNCATE)'),
      }),
    ];
  const bytes = file?.bytes ?? 0;
  if (bytes < LARGE_WAL_BYTES) return [];
  return [
    finding(
      'advice',
      'wal-large',
      `The -wal has ${megabytes(bytes)}, of which ${state.frames} frames are in use`,
      {
        meaning:
          'A WAL is used again from its beginning, and keeps the size of its largest moment: a large transaction, or a reader that stayed long.',
        mend: `${sqliteLine(facts, 'PRAGMA wal_checkpoint(TRUNCATE)')} makes it empty now; PRAGMA journal_size_limit = 67108864 in the program keeps it small.`,
      },
    ),
  ];
}

/** Readers that follow each other closely: a writer begins the WAL anew only in an instant without a reader of it. */
function notRestarted(facts: Facts, state: WalState, readers: readonly number[]): Finding {
  return finding(
    'advice',
    'wal-not-restarted',
    `The WAL has ${state.frames} frames, ${state.checkpointed} of them checkpointed, and does not begin anew`,
    {
      meaning: `A writer uses the WAL again from its beginning only while no process reads from it. ${processesInWords(facts, readers)} ${readers.length === 1 ? 'reads' : 'read'} from it now: where reads overlap without a pause, the file grows with each commit.`,
      mend: `${sqliteLine(facts, 'PRAGMA busy_timeout = 5000; PRAGMA wal_checkpoint(RESTART)')} (writers wait meanwhile), now and then; and shorter read transactions.`,
    },
  );
}

function pinned(facts: Facts, state: WalState, frame: number, by: readonly number[]): Finding {
  const pageBytes = facts.header?.pageSize ?? 4096;
  const held = megabytes((state.frames - frame) * pageBytes);
  return finding(
    'blocked',
    'wal-pinned',
    `${processesInWords(facts, by)} ${by.length === 1 ? 'pins' : 'pin'} the WAL at frame ${frame} of ${state.frames}`,
    {
      meaning: `A read transaction keeps its snapshot, so a checkpoint can copy no frame behind it, and the WAL cannot start again: ${held} wait, and it grows with each commit.`,
      mend: 'End that read transaction: COMMIT or ROLLBACK, and finish or reset each SELECT. Read long results in parts.',
    },
  );
}

/** Who may write the folder can make them. */
function oddFiles({ wal, journal, path }: Facts): Finding[] {
  const files = { [`${path}-wal`]: wal.file, [`${path}-shm`]: wal.index, [`${path}-journal`]: journal };
  return Object.entries(files)
    .filter(([, file]) => file?.isRegular === false)
    .map(([name]) =>
      finding('danger', 'odd-file', `${name} is no regular file`, {
        meaning:
          'SQLite would use a file of this name. A program that opens a FIFO waits for ever, and with a device or a folder it fails.',
        mend: `Find out what made it, then: mv ${shellWord(name)} ${shellWord(`${name}.odd`)}`,
      }),
    );
}

function foreignFiles(facts: Facts): Finding[] {
  const { database, wal, header, path } = facts;
  if (header?.isWal !== true) return [];
  const isClosed = (file: FileFacts | undefined): file is FileFacts =>
    file !== undefined && file.uid !== database.uid && (file.mode & OTHERS_WRITE) === 0;
  const files = [
    { name: `${path}-wal`, file: wal.file },
    { name: `${path}-shm`, file: wal.index },
  ].filter(({ file }) => isClosed(file));
  if (files.length === 0) return [];
  const names = files.map(({ name }) => shellWord(name)).join(' ');
  const owners = [...new Set(files.map(({ file }) => file?.user))].join(', ');
  return [
    finding('blocked', 'foreign-wal', `${names} belongs to ${owners}, and the database to ${database.user}`, {
      meaning:
        'Another user opened the idle database, and so made these files. The owner of the database cannot write them: it gets "attempt to write a readonly database".',
      mend: `chown ${database.uid} ${names}`,
    }),
  ];
}

function emptied({ database, header, path, wal }: Facts): Finding[] {
  if (!wal.hasFrames || header !== undefined || database.looksRandom) return [];
  const state = database.bytes === 0 ? 'is empty' : 'has no header';
  return [
    finding('danger', 'emptied', `${path}-wal has ${wal.file?.bytes ?? 0} bytes, and the database ${state}`, {
      meaning:
        'Something overwrote the database (> app.db, a copy that failed, a full disk), and the newest pages may be in the -wal alone. SQLite deletes the -wal beside an empty file as soon as a program opens it.',
      mend: `Open it with no program. First: cp ${shellWord(`${path}-wal`)} ${shellWord(`${path}-wal.saved`)}; then restore the database, and look into the copy for what is newer.`,
    }),
  ];
}

/** What follows from the absence of locks; where not all locks are seen, a program may be using these files. */
function leftovers(facts: Facts): Finding[] {
  const { wal, header, journal, path } = facts;
  // Any other file SQLite ignores.
  const bytes = wal.hasFrames ? (wal.file?.bytes ?? 0) : 0;
  const found: Finding[] = [];
  const isSure = facts.sight === 'all';
  const unless = isSure
    ? ''
    : ' This holds only if no program uses the database: not all locks are seen here.';
  if (journal?.isHot === true)
    found.push(
      finding(
        isSure ? 'danger' : 'advice',
        'hot-journal',
        isSure
          ? `A killed writer left ${path}-journal with a transaction half done`
          : `${path}-journal is that of a transaction under way, or of a killed writer if no program uses the database`,
        {
          meaning: `The database file may be in the middle of that transaction. The next program that opens it rolls back, with the help of this file. A copy of the database without it is damaged.${unless}`,
          mend: `Keep the journal with the database, and let SQLite roll back: ${sqliteLine(facts, 'SELECT count(*) FROM sqlite_schema')}`,
        },
      ),
    );
  if (bytes > 0 && header?.isWal === false && !wal.isInUse)
    found.push(
      finding(
        isSure ? 'danger' : 'advice',
        'wal-beside-rollback',
        `${path}-wal lies beside a database in rollback mode`,
        {
          meaning: `It belongs to another database, or to another state of this one, such as before a restore. SQLite would apply it, and so damage the content.${unless}`,
          mend: `Find out where it comes from. If it is not needed: mv ${shellWord(`${path}-wal`)} ${shellWord(`${path}-wal.old`)}`,
        },
      ),
    );
  const isUsed = wal.isInUse || facts.processes.length > 0 || facts.locks.length > 0;
  if (bytes > 0 && header?.isWal === true && !isUsed)
    found.push(
      finding(
        'advice',
        'wal-without-process',
        `${path}-wal has ${bytes} bytes, and no process ${isSure ? 'has' : 'is seen to have'} the database open`,
        {
          meaning: `The last program ended without closing it. The newest commits may be in the -wal alone: a copy of the database file lacks them. Nothing is lost.${unless}`,
          mend: sqliteLine(facts, 'PRAGMA wal_checkpoint(TRUNCATE)'),
        },
      ),
    );
  return found;
}

export function megabytes(bytes: number): string {
  return bytes < 1e6 ? `${Math.ceil(bytes / 1000)} kB` : `${(bytes / 1e6).toFixed(1)} MB`;
}
