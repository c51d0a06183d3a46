import { sanitizeLine } from '../errors.ts';
import type { Facts, PoolFacts } from './facts.ts';

/** Reads one value of a peer's JSON. Throws Error if it has another shape. */
type Reader = (value: unknown, name: string) => unknown;

const MAX_ENTRIES = 20_000;
const MAX_TEXT_LENGTH = 2000;

/** An unsigned number of 32 bits, as user ids and the fields of SQLite's headers are. */
const MAX_WORD = 2 ** 32 - 1;
/** The largest process id of Linux; `kill` takes other numbers for groups of processes. */
const MAX_PID = 2 ** 22;
/** The range of JavaScript's dates. */
const MAX_TIME_MS = 8.64e15;

const text: Reader = (value, name) =>
  sanitizeLine(typeof value === 'string' ? value : refuse(name), MAX_TEXT_LENGTH);
const integer =
  (min: number, max: number): Reader =>
  (value, name) =>
    Number.isSafeInteger(value) && (value as number) >= min && (value as number) <= max
      ? value
      : refuse(name);
const count = integer(0, Number.MAX_SAFE_INTEGER);
const word = integer(0, MAX_WORD);
const pid = integer(1, MAX_PID);
const time: Reader = (value, name) =>
  Number.isFinite(value) && Math.abs(value as number) <= MAX_TIME_MS ? value : refuse(name);
const bool: Reader = (value, name) => (typeof value === 'boolean' ? value : refuse(name));

const optional =
  (read: Reader): Reader =>
  (value, name) =>
    value === undefined ? undefined : read(value, name);

const nullable =
  (read: Reader): Reader =>
  (value, name) =>
    value === null ? null : read(value, name);

const list =
  (read: Reader): Reader =>
  (value, name) =>
    Array.isArray(value) && value.length <= MAX_ENTRIES
      ? value.map((entry) => read(entry, `${name}[]`))
      : refuse(name);

const oneOf =
  (...names: readonly string[]): Reader =>
  (value, name) =>
    names.includes(value as string) ? value : refuse(name);

/** Fields that it does not know are left out: a newer peer may send more. */
const object =
  (fields: Readonly<Record<string, Reader>>): Reader =>
  (value, name) => {
    if (typeof value !== 'object' || value === null) return refuse(name);
    const entries = Object.entries(fields).map(([field, read]) => [
      field,
      read((value as Record<string, unknown>)[field], `${name}.${field}`),
    ]);
    return Object.fromEntries(entries.filter(([, read]) => read !== undefined));
  };

const FILE = { bytes: count, uid: word, user: text, mode: integer(0, 0o7777), isRegular: bool };

const LOCK_NAMES =
  'SHARED RESERVED PENDING EXCLUSIVE WRITE CKPT RECOVER READ0 READ1 READ2 READ3 READ4 ATTACHED'.split(' ');

const PROCESS = {
  pid,
  command: optional(text),
  user: optional(text),
  container: optional(text),
  startedAtMs: optional(time),
  state: optional(text),
  isVisible: bool,
  otherName: optional(text),
  hasOtherWal: bool,
  hasDeletedFile: bool,
  isMapped: bool,
  libraries: list(text),
  isNapping: bool,
};

const WAL = {
  file: optional(object(FILE)),
  index: optional(object(FILE)),
  isInUse: bool,
  hasFrames: bool,
  state: optional(
    object({
      frames: count,
      checkpointed: count,
      readMarks: list(nullable(word)),
      commits: word,
      index: text,
      pageCount: count,
      newFrames: count,
      newCommits: count,
    }),
  ),
};

const FULL = {
  faults: list(text),
  unchecked: list(text),
  brokenReferences: list(object({ table: text, parent: text, rows: count })),
  sizes: list(object({ name: text, table: text, pages: count, bytes: count, unusedBytes: count })),
  vacuumBytes: count,
};

const WORK = object({ label: text, forMs: count });
const POOL = object({
  pid,
  writer: optional(WORK),
  waitingCount: count,
  waiting: list(WORK),
  readers: list(WORK),
});

const FACTS = object({
  path: text,
  host: text,
  database: object({
    ...FILE,
    hardLinks: count,
    isMountedAlone: bool,
    fileSystem: optional(text),
    isNetwork: bool,
    blockBytes: count,
    looksRandom: bool,
  }),
  header: optional(
    object({
      pageSize: count,
      pageCount: optional(count),
      isWal: bool,
      autoVacuum: oneOf('none', 'full', 'incremental'),
      freePages: count,
      changes: word,
      sqliteVersion: word,
    }),
  ),
  wal: object(WAL),
  journal: optional(object({ ...FILE, isUnfinished: bool, isHot: bool })),
  processes: list(object(PROCESS)),
  locks: list(object({ pid, name: oneOf(...LOCK_NAMES), isExclusive: bool, isHeldThroughout: bool })),
  pools: list(POOL),
  lookedForMs: count,
  busyMs: optional(count),
  sight: oneOf('all', 'some', 'files'),
  health: object({ problems: list(text), unchecked: optional(text) }),
  full: optional(object(FULL)),
  unseen: list(text),
});

/** What a process says of its pools, with its texts safe to show. Throws Error for anything else. */
export function readPool(json: string): PoolFacts {
  return POOL(JSON.parse(json), 'pool') as PoolFacts;
}

/** The facts in a peer's answer, with its texts safe to show. Throws Error for anything else. */
export function readFacts(bytes: Uint8Array): Facts {
  return FACTS(JSON.parse(new TextDecoder().decode(bytes)), 'facts') as Facts;
}

function refuse(name: string): never {
  throw new Error(`${name} has another form`);
}
