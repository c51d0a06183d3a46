import { basename } from 'node:path';
import { userName } from '../../files/file-owner.ts';
import {
  fileNamed,
  inodeOf,
  isKernelThread,
  isSameFile,
  mappedFilesOf,
  openFilesOf,
  processIds,
  processInfo,
  sharesNames,
} from '../../files/processes.ts';
import type { NamedFile, OpenFile } from '../../files/processes.ts';
import type { ProcessFacts } from '../facts.ts';

/** The files of libraries that have a SQLite of their own in them. */
const LIBRARIES =
  /^(?:libsqlite3\b.*|better_sqlite3\.node|sqlsync.*\.node|node_sqlite3\.node|libe_sqlite3\.so|libsqlitejdbc\.so|libsqlcipher\b.*|SQLite\.Interop\.dll)$/;

/** A command line has any length. Its beginning names the program, and its end what it runs. */
const COMMAND_HEAD = 200;
const COMMAND_TAIL = 300;

const DELETED = ' (deleted)';

/** How a process has the files of a database open. */
interface OpenDatabase {
  readonly otherName: string | undefined;
  readonly hasOtherWal: boolean;
  readonly hasDeletedFile: boolean;
}

export interface FoundProcesses {
  readonly open: ReadonlyMap<number, OpenDatabase>;
  /** The processes that this user may not look into. */
  readonly hidden: ReadonlySet<number>;
}

/**
 * Which of the processes `pids` have the database at `path` (absolute and real) open. Opens none of its files.
 */
export function processesWith(path: string, pids: readonly number[] = processIds()): FoundProcesses {
  const names = [path, `${path}-wal`, `${path}-shm`, `${path}-journal`];
  const files = new Map(names.map((name) => [name, fileNamed(name)]));
  const open = new Map<number, OpenDatabase>();
  const hidden = new Set<number>();
  for (const pid of pids) {
    if (pid === process.pid) continue;
    const all = openFilesOf(pid);
    if (all === undefined && !isKernelThread(pid)) hidden.add(pid);
    const found = databaseAmong(pid, all ?? [], path, files);
    if (found !== undefined) open.set(pid, found);
  }
  return { open, hidden };
}

/**
 * Two looks as one: the processes of the second, with what both saw wrong. SQLite deletes the -shm an instant before it
 * closes it.
 */
export function confirmed(first: FoundProcesses, second: FoundProcesses): FoundProcesses {
  const open = [...second.open].map(([pid, now]): [number, OpenDatabase] => {
    const before = first.open.get(pid);
    return [
      pid,
      {
        ...now,
        hasOtherWal: now.hasOtherWal && before?.hasOtherWal === true,
        hasDeletedFile: now.hasDeletedFile && before?.hasDeletedFile === true,
      },
    ];
  });
  return { open: new Map(open), hidden: new Set([...first.hidden, ...second.hidden]) };
}

/** Undefined if none of these open files belongs to the database. */
function databaseAmong(
  pid: number,
  open: readonly OpenFile[],
  path: string,
  files: ReadonlyMap<string, NamedFile | undefined>,
): OpenDatabase | undefined {
  // A server has thousands of files open, and each number of one is a read of its own.
  const inodes = new Set([...files.values()].map((wanted) => wanted?.inode));
  const known = new Map(open.map((file) => [file, inodeOf(pid, file)] as const));
  const alike = open.filter((file) => known.get(file) !== undefined && inodes.has(known.get(file)));
  const isFile = (file: OpenFile, name: string): boolean => {
    const wanted = files.get(name);
    return wanted !== undefined && isSameFile(pid, file, known.get(file), wanted);
  };
  const database = alike.filter((file) => isFile(file, path));
  const hasDeletedFile =
    open.some(({ name }) => name.endsWith(DELETED) && files.has(name.slice(0, -DELETED.length))) &&
    sharesNames(pid);
  const isBeside = alike.some((file) =>
    [`${path}-wal`, `${path}-shm`, `${path}-journal`].some((name) => isFile(file, name)),
  );
  if (database.length === 0 && !hasDeletedFile && !isBeside) return undefined;
  const other = database.map(({ name }) => name).find((name) => name !== path && !name.endsWith(DELETED));
  const hasOtherWal = database.some(({ name }) =>
    open.some((file) =>
      ['-wal', '-shm'].some(
        (suffix) => file.name === `${name}${suffix}` && !isFile(file, `${path}${suffix}`),
      ),
    ),
  );
  return { otherName: other, hasOtherWal, hasDeletedFile };
}

/** What may be told of a process; `isRestricted` withholds what is not about the database. */
export function processFacts(
  pid: number,
  found: FoundProcesses,
  { path, isNapping, isRestricted }: { path: string; isNapping: boolean; isRestricted: boolean },
): ProcessFacts {
  const open = found.open.get(pid);
  const info = processInfo(pid);
  const mapped = mappedFilesOf(pid);
  const inode = fileNamed(path)?.inode;
  const libraries = [
    ...new Set(mapped.filter(({ name }) => LIBRARIES.test(basename(name))).map(({ name }) => name)),
  ];
  const isMapped = mapped.some((file) => file.inode === inode && basename(file.name) === basename(path));
  const common = {
    pid,
    ...(info === undefined ? {} : { startedAtMs: info.startedAtMs, state: info.state }),
    isVisible: !found.hidden.has(pid),
    hasOtherWal: open?.hasOtherWal === true,
    hasDeletedFile: open?.hasDeletedFile === true,
    isMapped,
    isNapping,
  };
  if (isRestricted) return { ...common, libraries: libraries.map((name) => basename(name)) };
  return {
    ...common,
    libraries,
    ...(open?.otherName === undefined ? {} : { otherName: open.otherName }),
    ...(info === undefined ? {} : { command: cutMiddle(info.command), user: userName(info.uid) }),
    ...(info?.container === undefined ? {} : { container: info.container }),
  };
}

function cutMiddle(command: string): string {
  if (command.length <= COMMAND_HEAD + COMMAND_TAIL) return command;
  return `${command.slice(0, COMMAND_HEAD)} … ${command.slice(-COMMAND_TAIL)}`;
}
