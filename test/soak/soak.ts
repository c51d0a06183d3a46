import assert from 'node:assert/strict';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import Database from 'better-sqlite3';
import { Random } from '../../fixtures/random.ts';
import { assertReplicaOf } from '../support/compare.ts';
import { ObedientChild } from '../support/child-orders.ts';
import { assertOneSnapshot } from '../support/stamped-database.ts';
import { StampedOrigin } from '../support/stamped-origin.ts';
import type { Replacement } from '../support/stamped-origin.ts';
import type { Sshd } from '../support/sshd.ts';
import type { ApplicationOrder, ApplicationReply, ApplicationReport } from './application.ts';
import { SoakBackups } from './backups.ts';
import type { BackupFigures } from './backups.ts';
import { Commands } from './command.ts';
import type { CommandEnd, RunningCommand, Way } from './command.ts';
import { SOAK_FAULTS } from './faults.ts';
import type { SoakFault } from './faults.ts';
import type { ReaderReport } from './reader.ts';
import { SmallDisk } from './small-disk.ts';

const APPLICATION = fileURLToPath(new URL('./application.ts', import.meta.url));
const READER = fileURLToPath(new URL('./reader.ts', import.meta.url));

/** The time of a sync, until the soak has measured some. */
const FIRST_GUESS_MS = 400;

/** The number of steps between two syncs by the library. */
const LIBRARY_EVERY = 3;

/** The share of steps with a backup beside them. */
const BACKUP_EVERY = 4;

/** Exit statuses of a sync with a fault; INTERNAL is none of them. */
const CLEAR_STATUSES: ReadonlySet<number | null> = new Set([0, 3, 4, 5, 7, 8, 10, 13, 14, 15, 16, 130]);

/** Files that may lie beside a replica after a successful sync. */
const ALLOWED = /^((library|local|disk|other)\.db(-wal|-shm)?|\.(library|local|disk|other)\.db\.sqlsync)$/;

export interface SoakOptions {
  readonly seed: number;
  readonly sshd: Sshd | undefined;
}

/** The counts in a fault's row: its number of times, and the outcomes of the syncs. */
export interface FaultFigures {
  times: number;
  readonly outcomes: Record<string, number>;
}

/** Resident memory and descriptors of a long-lived process. */
export interface ProcessFigures {
  readonly name: string;
  readonly rssBytes: number;
  readonly descriptors: number;
}

/**
 * Processes that write an origin and read its replicas, while one step after another syncs and something goes wrong;
 * after each, the soak checks the promises of docs/reliability.md.
 *
 *     writers ─┐                        ┌─► local.db   by the command line, also over SSH
 *     writers ─┼─► origin.db ──► syncs ─┼─► disk.db    the same, on a disk that gets full
 *     application (pools) ─┘     │      └─► library.db by the application's own sync()
 *                                └────────► store      by backups, beside some of the steps
 */
export class Soak {
  readonly random: Random;
  readonly origin: StampedOrigin;
  readonly commands: Commands;
  readonly disk: SmallDisk | undefined;
  readonly figures: Map<string, FaultFigures> = new Map();
  syncs = 0;
  bytes = 0;
  #typicalMs = FIRST_GUESS_MS;
  readonly #folder: string;
  readonly #replicas: string[];
  #application: ObedientChild<ApplicationOrder, ApplicationReply> | undefined;
  #reader: ObedientChild<'pause' | 'resume', ReaderReport> | undefined;
  #backups: SoakBackups | undefined;

  static async start(options: SoakOptions): Promise<Soak> {
    const soak = new Soak(options);
    await soak.#startProcesses();
    return soak;
  }

  private constructor({ seed, sshd }: SoakOptions) {
    this.#folder = mkdtempSync(join(tmpdir(), 'sqlsync-soak-'));
    this.random = new Random(seed);
    this.disk = SmallDisk.mount(join(this.#folder, 'disk'));
    mkdirSync(join(this.#folder, 'replicas'));
    const onDisk = this.disk?.path ?? join(this.#folder, 'replicas');
    this.#replicas = [
      join(this.#folder, 'replicas', 'local.db'),
      join(onDisk, 'disk.db'),
      join(this.#folder, 'replicas', 'library.db'),
    ];
    const cells = 1500;
    this.origin = new StampedOrigin(join(this.#folder, 'origin.db'), { seed, pageSize: 4096, cells });
    this.commands = new Commands(this.#folder, sshd);
  }

  get replicaOnDisk(): string {
    return this.#replicas[1] as string;
  }

  async #startProcesses(): Promise<void> {
    const kinds = ['write', 'write', 'insertMany', 'deleteMany', 'rewrite', 'passive', 'reopen'];
    await this.origin.start({ processes: 2, kinds, pauseMs: 20, seed: this.random.integer(1, 1e6) });
    const library = this.#replicas[2] as string;
    const backupRandom = new Random(this.random.uint32());
    this.#backups = await SoakBackups.start(this.#folder, this.origin.path, backupRandom, this.commands);
    this.#application = await ObedientChild.start(APPLICATION, [this.origin.path, library, '10']);
    for (const replica of this.#replicas) this.#took(await this.startSync(replica, 'local').ended);
    this.#reader = await ObedientChild.start(READER, [
      String(this.random.integer(1, 1e6)),
      ...this.#replicas,
    ]);
  }

  /**
   * Runs one fault, and checks all that must hold afterwards. Throws an AssertionError that names the broken
   * promise.
   */
  async step(number: number): Promise<void> {
    if (number % LIBRARY_EVERY === 0) await this.#syncByLibrary();
    const fault = this.#pickFault();
    const replica = fault.name === 'disk full' ? this.replicaOnDisk : this.random.pick(this.#replicas);
    const before = this.#stamp(replica);
    const originBefore = this.#originStamp();
    await this.#application?.order('phase sync');
    const backup = number % BACKUP_EVERY === 0 ? this.#backups?.turn(originBefore) : undefined;
    // Both are awaited before either is judged.
    const backedUp = Promise.allSettled([backup]);
    let end: CommandEnd;
    try {
      end = await fault.run(this, replica);
    } finally {
      await backedUp;
    }
    await this.#application?.order('phase idle');
    this.#took(end);
    this.#count(fault.name, end);
    const where = `step ${number} (${fault.name}, ${basename(replica)}): ${describe(end)}`;
    try {
      await backup;
      await this.#check(fault, replica, { before, originBefore, end });
    } catch (error) {
      throw new Error(`${where}: ${String(error)}; beside it ${sizesBeside(replica)}`, { cause: error });
    }
  }

  startSync(replica: string, way: Way = this.random.pick(this.commands.ways)): RunningCommand {
    return this.commands.start(way, this.origin.path, replica);
  }

  /** Waits for a random part of the time of a sync, or until the sync is over. */
  async pauseWithin(running: RunningCommand): Promise<void> {
    const ended = new AbortController();
    const wait = delay(this.random.next() * this.#typicalMs, undefined, { signal: ended.signal });
    await Promise.race([wait, running.ended]);
    ended.abort();
    await wait.catch(() => {});
  }

  async withoutReaders<T>(work: () => Promise<T>): Promise<T> {
    await this.#reader?.order('pause');
    try {
      return await work();
    } finally {
      await this.#reader?.order('resume');
    }
  }

  async replaceOrigin(how: Replacement): Promise<void> {
    await this.#application?.order('close');
    await this.origin.replace(how);
    await this.#application?.order('open');
  }

  /** The figures of every process that lives as long as the soak. */
  processes(): ProcessFigures[] {
    const named = [
      ['application', this.#application?.pid ?? 0] as const,
      ['reader', this.#reader?.pid ?? 0] as const,
      ...this.origin.writerPids.map((pid, i) => [`writer ${i + 1}`, pid] as const),
      ['this program', process.pid] as const,
    ];
    return named.map(([name, pid]) => ({
      name,
      rssBytes: Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]) * 1024,
      descriptors: readdirSync(`/proc/${pid}/fd`).length,
    }));
  }

  async report(): Promise<{ application: ApplicationReport; reader: ReaderReport }> {
    const application = (await this.#application?.order('report')) as ApplicationReport;
    const reader = (await this.#reader?.order('resume')) as ReaderReport;
    return { application, reader };
  }

  get backups(): BackupFigures | undefined {
    return this.#backups?.figures;
  }

  /** Without further faults, every replica becomes equal to the origin, and every snapshot restores to its content. */
  async end(): Promise<void> {
    await this.#application?.order('close');
    await this.origin.pause();
    await this.#reader?.order('pause');
    for (const replica of this.#replicas) {
      this.#took(await this.startSync(replica, 'local').ended);
      assertReplicaOf(this.origin.path, replica);
      this.#assertNothingLeft(replica);
    }
    await this.#backups?.end();
    await this.#reader?.stop();
    await this.#application?.stop();
    await this.origin.stop();
    this.#reader = this.#application = undefined;
  }

  /** Ends all processes that still run, as after a failed step, and removes all files. */
  async abandon(): Promise<void> {
    for (const child of [this.#application, this.#reader]) await child?.stop().catch(() => {});
    await this.origin.stop().catch(() => {});
    this.disk?.unmount();
    rmSync(this.#folder, { recursive: true, force: true });
  }

  #pickFault(): SoakFault {
    const total = SOAK_FAULTS.reduce((sum, { weight }) => sum + weight, 0);
    let at = this.random.next() * total;
    return SOAK_FAULTS.find(({ weight }) => (at -= weight) < 0) as SoakFault;
  }

  async #syncByLibrary(): Promise<void> {
    const reply = (await this.#application?.order('sync')) as {
      outcome: string;
      code?: string;
      bytes: number;
    };
    assert.equal(reply.code, undefined, `sync() of the application: ${reply.code} ${reply.outcome}`);
    this.syncs++;
    this.bytes += reply.bytes;
    assertOneSnapshot(this.#replicas[2] as string);
  }

  async #check(
    fault: SoakFault,
    replica: string,
    { before, originBefore, end }: { before: number | undefined; originBefore: number; end: CommandEnd },
  ): Promise<void> {
    const killed = end.signal === 'SIGKILL' || end.signal === 'SIGTERM';
    assert.ok(CLEAR_STATUSES.has(end.status) || killed, 'an end that says nothing');
    if (fault.name === 'none') assert.equal(end.status, 0, 'a sync without a fault');
    const after = this.#stamp(replica);
    if (end.status === 0) this.#assertNew(after, originBefore);
    else if (fault.damages !== true) {
      const isOld = after === before;
      assert.ok(isOld || (after ?? 0) >= originBefore, `stamp ${after}, ${before} before`);
    }
    if (end.status !== 0) {
      const again = await this.startSync(replica, 'local').ended;
      this.#took(again);
      assert.equal(again.status, 0, `running again: ${describe(again)}`);
      this.#assertNew(this.#stamp(replica), originBefore);
    }
    this.#assertNothingLeft(replica);
  }

  #assertNew(stamp: number | undefined, originBefore: number): void {
    assert.ok(stamp !== undefined && stamp >= originBefore, `success, and stamp ${stamp} < ${originBefore}`);
  }

  #assertNothingLeft(replica: string): void {
    const names = readdirSync(dirname(replica)).filter((name) => !ALLOWED.test(name) && name !== 'filler');
    assert.deepEqual(names, [], 'left beside the replica');
  }

  /** Proves that the replica is one snapshot, and returns its stamp; undefined without a replica. */
  #stamp(replica: string): number | undefined {
    return existsSync(replica) ? assertOneSnapshot(replica).stamp : undefined;
  }

  #originStamp(): number {
    const database = new Database(this.origin.path, { readonly: true, timeout: 5000 });
    try {
      return database.prepare('SELECT stamp FROM total').pluck().get() as number;
    } finally {
      database.close();
    }
  }

  #took(end: CommandEnd): void {
    this.syncs++;
    this.bytes += end.bytes;
    if (end.status === 0) this.#typicalMs += (end.durationMs - this.#typicalMs) / 10;
  }

  #count(name: string, { status, outcome, signal }: CommandEnd): void {
    const row = this.figures.get(name) ?? { times: 0, outcomes: {} };
    this.figures.set(name, row);
    row.times++;
    const how = status === null ? `killed by ${signal}` : outcome;
    row.outcomes[how] = (row.outcomes[how] ?? 0) + 1;
  }
}

function sizesBeside(replica: string): string {
  const folder = dirname(replica);
  return readdirSync(folder)
    .map((name) => `${name} ${statSync(join(folder, name)).size}`)
    .join(', ');
}

function describe({ status, signal, outcome, message }: CommandEnd): string {
  return `${signal ?? `exit ${status}`}, ${outcome} ${message}`;
}
