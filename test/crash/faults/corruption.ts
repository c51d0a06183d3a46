import assert from 'node:assert/strict';
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import Database from 'better-sqlite3';
import { Random } from '../../../fixtures/random.ts';
import type { SqlsyncError } from '../../../src/errors.ts';
import { maskedPages, pageImage } from '../../support/compare.ts';
import { runRelayed } from '../../support/relay-near.ts';
import type { Pair } from '../../support/relay-near.ts';
import type { Passing, Verdict } from '../../support/relay.ts';
import type { FaultGroup, FaultOptions } from './group.ts';
import { includesFault, pick, Tally } from './group.ts';
import { pagesOf, Scene } from './scene.ts';
import type { SceneKind } from './scene.ts';

/** Damage to one file, and what the next sync must make of it. */
interface Damage {
  readonly name: string;
  readonly kind: SceneKind;
  readonly times: number;
  /**
   * 'repaired': the replica becomes the new snapshot. 'repaired or refused': or the run fails and changes no byte, where
   * the damage may make the replica another thing than a database that we may overwrite. 'copied or refused': the origin
   * is damaged, and what SQLite reads of it is copied exactly.
   */
  readonly expected: 'repaired' | 'repaired or refused' | 'copied or refused';
  /** SQLite's recovery changes the replica before the sync looks at it. */
  readonly isRecovered?: boolean;
  /** Does the damage before the sync, or returns a function that does it during the sync. */
  readonly damage: (pair: Pair, random: Random) => ((passing: Passing) => Verdict) | void;
}

const PAGE_BYTES = 1024;
const HEADER_BYTES = 100;
/** In the short run, each once. */
const SHORT_DAMAGES = 12;

const DAMAGES: readonly Damage[] = [
  ofReplica('flipped bytes in a replica', 'wal', 60, (path, random) => flip(path, HEADER_BYTES, random)),
  ofReplica('flipped bytes in a replica', 'rollback', 60, (path, random) => flip(path, HEADER_BYTES, random)),
  {
    ...ofReplica('a flipped byte in the header of a replica', 'wal', 100, (path, random) =>
      flipOne(path, random.integer(0, HEADER_BYTES - 1), random),
    ),
    expected: 'repaired or refused',
  },
  ofReplica('pages of zeros in a replica', 'rollback', 20, zeroPages),
  ofReplica('flipped bytes in pages that stand in the -wal too', 'wal', 40, (path, random) => {
    leaveWal(path);
    flip(path, HEADER_BYTES, random);
  }),
  ofReplica('flipped bytes in the -wal of a replica', 'wal', 60, (path, random) => {
    leaveWal(path);
    flip(`${path}-wal`, 0, random);
  }),
  ofReplica('a -shm of random bytes beside a replica', 'wal', 20, (path, random) => {
    leaveWal(path);
    writeFileSync(`${path}-shm`, random.bytes(32768));
  }),
  ofReplica('the -wal of another database beside a replica', 'wal', 20, (path, random) =>
    foreignWal(path, random),
  ),
  ofReplica('the -wal of another database beside a replica', 'rollback', 20, (path, random) =>
    foreignWal(path, random),
  ),
  ofReplica('a hot journal beside a replica', 'rollback', 20, (path) => leaveHotJournal(path)),
  {
    // SQLite plays back the journal before anybody can look at it, and may so damage the database beyond
    // recognition.
    ...ofReplica('flipped bytes in a hot journal beside a replica', 'rollback', 60, (path, random) => {
      leaveHotJournal(path);
      flip(`${path}-journal`, 0, random);
    }),
    expected: 'repaired or refused',
    isRecovered: true,
  },
  ofReplica('a hot journal whose super-journal is missing', 'rollback', 20, (path) => {
    leaveHotJournal(path);
    nameSuperJournal(path);
  }),
  ofReplica('a journal of random bytes beside a replica', 'rollback', 20, (path, random) =>
    writeFileSync(`${path}-journal`, random.bytes(5000)),
  ),
  ofReplica('flipped bytes in a part file', 'resumed', 60, (path, random) =>
    flip(join(dirname(path), '.replica.db.sqlsync-part'), 0, random),
  ),
  ofReplica('a part file of random bytes', 'resumed', 20, (path, random) =>
    writeFileSync(join(dirname(path), '.replica.db.sqlsync-part'), random.bytes(40_000)),
  ),
  {
    name: 'flipped bytes in a spool while it is filled',
    kind: 'rollback',
    times: 60,
    expected: 'repaired or refused',
    damage: (pair, random) => duringTransfer(random, () => flipFirstOf(besides(pair, '-spool'), random)),
  },
  ofOrigin('flipped bytes in an origin', 80, (path, random) => flip(path, HEADER_BYTES, random)),
  ofOrigin('a flipped byte in the header of an origin', 100, (path, random) =>
    flipOne(path, random.integer(0, HEADER_BYTES - 1), random),
  ),
  ofOrigin('flipped bytes in the -wal of an origin', 60, (path, random) => {
    leaveWal(path);
    flip(`${path}-wal`, 0, random);
  }),
  ofOrigin('a -shm of random bytes beside an origin', 20, (path, random) => {
    leaveWal(path);
    writeFileSync(`${path}-shm`, random.bytes(32768));
  }),
  ofOrigin('the -wal of another database beside an origin', 20, (path, random) => foreignWal(path, random)),
  ofOrigin('a hot journal beside an origin', 20, (path) => {
    setJournalMode(path, 'delete');
    leaveHotJournal(path);
  }),
  ofOrigin('a hot journal whose super-journal is missing beside an origin', 20, (path) => {
    setJournalMode(path, 'delete');
    leaveHotJournal(path);
    nameSuperJournal(path);
  }),
  ofOrigin('an origin that lost its end', 40, (path, random) => {
    const bytes = readFileSync(path);
    writeFileSync(path, bytes.subarray(0, random.integer(1, bytes.length - 1)));
  }),
];

/** Damaged databases, journals, part files and spools on either side. */
export const corruption: FaultGroup = async function* (options) {
  const folder = mkdtempSync(join(tmpdir(), 'sqlsync-corruption-'));
  const scenes = new Map<SceneKind, Scene>();
  try {
    const damages = options.long ? DAMAGES : pick(DAMAGES, SHORT_DAMAGES, new Random(options.seed));
    for (const damage of damages) {
      const fault = `${damage.name}: ${damage.kind}`;
      if (!includesFault(options, fault)) continue;
      const scene = scenes.get(damage.kind) ?? (await Scene.make(join(folder, damage.kind), damage.kind));
      scenes.set(damage.kind, scene);
      yield await tryDamage(fault, scene, damage, options);
    }
  } finally {
    for (const scene of scenes.values()) await scene.end();
    rmSync(folder, { recursive: true, force: true });
  }
};

async function tryDamage(
  fault: string,
  scene: Scene,
  damage: Damage,
  { seed, long }: FaultOptions,
): Promise<Tally> {
  const tally = new Tally(fault);
  for (let time = 1; time <= (long ? damage.times : 1); time++) {
    const random = new Random(seed + time);
    await tally.add(`time ${time}`, async () => {
      const pair = { ...scene.pair(), overwrite: damage.expected === 'copied or refused' };
      if (pair.overwrite) Object.assign(pair, { origin: originOfItsOwn(scene, pair) });
      const during = damage.damage(pair, random) ?? undefined;
      const before = contentOf(scene, pair);
      const { near, far } = await runRelayed(random.pick(['push', 'pull']), pair, during);
      const failure = near ?? far;
      assert.notEqual(failure?.code, 'INTERNAL', failure?.message);
      if (failure === undefined) checkCopy(scene, pair, damage);
      else if (damage.expected === 'repaired') throw failure;
      else if (damage.isRecovered !== true)
        assert.deepEqual(contentOf(scene, pair), before, `${failure.code}, and the replica was changed`);
      if (!pair.overwrite) await scene.checkOrigin();
      if (failure !== undefined && !pair.overwrite) await convergeAfter(failure, scene, pair);
      scene.discard(pair);
      return failure?.code ?? (damage.expected === 'copied or refused' ? 'copied' : 'repaired');
    });
  }
  return tally;
}

/**
 * Checks that a second run mends the replica, if the user allows to overwrite it; or that it says the same,
 * and mends it once the replica is removed.
 */
async function convergeAfter(failure: SqlsyncError, scene: Scene, pair: Pair): Promise<void> {
  const { near, far } = await runRelayed('push', { ...pair, overwrite: true });
  const again = near ?? far;
  if (again !== undefined) {
    assert.equal(again.code, failure.code, again.message);
    const folder = dirname(pair.replica);
    for (const name of readdirSync(folder)) rmSync(join(folder, name));
  }
  await scene.converge(pair);
}

function checkCopy(scene: Scene, pair: Pair, { expected }: Damage): void {
  if (expected !== 'copied or refused') {
    assert.equal(scene.state(pair), 'new');
    return;
  }
  const [origin, replica] = [imageOf(pair.origin), imageOf(pair.replica)];
  assert.deepEqual(maskedPages(replica), maskedPages(origin), 'the replica is no exact copy');
}

/** The pages as SQLite sees them, or the bytes of the file if SQLite cannot parse the schema. */
function imageOf(path: string): Buffer {
  try {
    return pageImage(path);
  } catch {
    return readFileSync(path);
  }
}

function ofReplica(
  name: string,
  kind: SceneKind,
  times: number,
  harm: (path: string, random: Random) => void,
): Damage {
  return { name, kind, times, expected: 'repaired', damage: ({ replica }, random) => harm(replica, random) };
}

function ofOrigin(name: string, times: number, harm: (path: string, random: Random) => void): Damage {
  const damage: Damage['damage'] = ({ origin }, random) => harm(origin, random);
  return { name, kind: 'wal', times, expected: 'copied or refused', damage };
}

function originOfItsOwn(scene: Scene, pair: Pair): string {
  const origin = join(dirname(pair.replica), 'origin', 'origin.db');
  mkdirSync(dirname(origin));
  copyFileSync(scene.origin, origin);
  return origin;
}

/**
 * What a refused sync must leave: the pages that SQLite sees, in the file, its WAL and its journal; or the
 * bytes of the file if SQLite cannot read them.
 */
function contentOf(scene: Scene, { replica }: Pair): readonly Buffer[] | undefined {
  if (!existsSync(replica)) return undefined;
  try {
    return pagesOf(replica, scene.folder);
  } catch {
    return [readFileSync(replica)];
  }
}

function besides({ replica }: Pair, suffix: string): string {
  return join(dirname(replica), `.${basename(replica)}.sqlsync${suffix}`);
}

/** Calls `harm` once, at a message chosen at random. */
function duringTransfer(random: Random, harm: () => void): (passing: Passing) => Verdict {
  const at = random.pick(['pages', 'getRoot', 'root', 'release'] as const);
  let isDone = false;
  return ({ message }) => {
    if (message.type === at && !isDone) {
      isDone = true;
      harm();
    }
    return [message];
  };
}

/** Some bytes of the part that has content. */
function flipFirstOf(path: string, random: Random): void {
  if (existsSync(path) && readFileSync(path).length > 0) flip(path, PAGE_BYTES, random);
}

function flip(path: string, from: number, random: Random): void {
  const bytes = readFileSync(path);
  if (bytes.length <= from) return;
  for (let i = random.integer(1, 20); i > 0; i--) {
    const at = random.integer(from, bytes.length - 1);
    bytes[at] = (bytes[at] as number) ^ random.integer(1, 255);
  }
  writeFileSync(path, bytes);
}

function flipOne(path: string, at: number, random: Random): void {
  const bytes = readFileSync(path);
  bytes[at] = (bytes[at] as number) ^ random.integer(1, 255);
  writeFileSync(path, bytes);
}

function zeroPages(path: string, random: Random): void {
  const bytes = readFileSync(path);
  const pages = bytes.length / PAGE_BYTES;
  for (let i = 0; i < 5; i++) {
    const page = random.integer(1, pages - 1);
    bytes.fill(0, page * PAGE_BYTES, (page + 1) * PAGE_BYTES);
  }
  writeFileSync(path, bytes);
}

/** Puts the database into the state that a process leaves when it is killed in the middle of `sql`. */
function leaveKilled(path: string, sql: string, suffixes: readonly string[]): void {
  const aside = mkdtempSync(join(dirname(path), 'killed-'));
  const database = new Database(path);
  try {
    database.exec(sql);
    for (const suffix of ['', ...suffixes]) copyFileSync(path + suffix, join(aside, `database${suffix}`));
  } finally {
    database.close();
  }
  for (const suffix of ['-wal', '-shm', '-journal']) rmSync(path + suffix, { force: true });
  for (const name of readdirSync(aside)) {
    // Into the same inode, which the mark names.
    writeFileSync(path + name.slice('database'.length), readFileSync(join(aside, name)));
  }
  rmSync(aside, { recursive: true });
}

function leaveWal(path: string): void {
  leaveKilled(path, "UPDATE item SET name = 'in the wal' WHERE id % 3 = 0", ['-wal']);
}

function leaveHotJournal(path: string): void {
  leaveKilled(path, "PRAGMA cache_size = 2; BEGIN; UPDATE item SET payload = randomblob(900), name = 'x'", [
    '-journal',
  ]);
}

function foreignWal(path: string, random: Random): void {
  const other = join(dirname(path), 'other.db');
  const database = new Database(other);
  database.pragma(`page_size = ${PAGE_BYTES}`);
  database.pragma('journal_mode = wal');
  database.exec('CREATE TABLE foreign_table (x)');
  const put = database.prepare('INSERT INTO foreign_table VALUES (?)');
  for (let i = 0; i < 10; i++) put.run(random.bytes(700));
  copyFileSync(`${other}-wal`, `${path}-wal`);
  database.close();
  for (const name of readdirSync(dirname(path))) {
    if (name.startsWith('other.db')) rmSync(join(dirname(path), name));
  }
}

/** As https://www.sqlite.org/fileformat2.html describes the end of a journal of several files. */
function nameSuperJournal(path: string): void {
  const name = Buffer.from(join(dirname(path), 'gone-mj01234567'));
  const tail = Buffer.alloc(4 + name.length + 16);
  tail.writeUInt32BE(2 ** 30 / PAGE_BYTES + 1, 0);
  name.copy(tail, 4);
  tail.writeUInt32BE(name.length, 4 + name.length);
  tail.writeUInt32BE(name.reduce((sum, byte) => (sum + ((byte << 24) >> 24)) | 0, 0) >>> 0, 8 + name.length);
  Buffer.from('d9d505f920a163d7', 'hex').copy(tail, 12 + name.length);
  writeFileSync(`${path}-journal`, Buffer.concat([readFileSync(`${path}-journal`), tail]));
}

function setJournalMode(path: string, mode: 'delete' | 'wal'): void {
  const database = new Database(path);
  database.pragma(`journal_mode = ${mode}`);
  database.close();
}
