import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import Database from 'better-sqlite3';
import { Random } from '../../../fixtures/random.ts';
import { ObedientChild } from '../../support/child-orders.ts';
import { Commands } from '../command.ts';
import type { CommandEnd } from '../command.ts';
import { DisturbedCommands, signalTo } from './disturbed-commands.ts';
import type { CommandFigures } from './disturbed-commands.ts';
import { History, makeHistory } from './history.ts';
import type { HistoryOptions } from './history.ts';
import { StormStore } from './store.ts';

const WRITER = fileURLToPath(new URL('./writer.ts', import.meta.url));
const WRITERS = 2;

export interface StormOptions {
  readonly seed: number;
  readonly cells?: number;
  /** The average time between two transactions of a writer. */
  readonly pauseMs?: number;
}

/**
 * Everything at once, each in a loop of its own, and every process now and then killed or stopped for a while:
 *
 *     writers ─► origin ─┬─ sync ─┐
 *                        ├─ sync ─┴► middle ── sync ──► leaf
 *                        └─ backup ─► store ─┬─ restore --overwrite ─► restored
 *                              forget, prune ┘
 *
 * Each database is at any moment a state that the origin had; those of middle and leaf never go back; the report of a successful command is true; no writer is refused. The seed repeats the choices, not the moments at which processes meet.
 */
export class Storm {
  readonly history: History;
  /** The broken promises. */
  readonly broken: string[] = [];
  reads = 0;
  refusedReads = 0;
  readonly #folder: string;
  readonly #historyOptions: HistoryOptions;
  readonly #pauseMs: number;
  readonly #random: Random;
  readonly #commands: DisturbedCommands;
  readonly #highest = new Map<string, number>();
  readonly #store: StormStore;
  #writers: ObedientChild<'report', 'done'>[] = [];
  #isOver = false;

  constructor({ seed, cells = 3000, pauseMs = 30 }: StormOptions) {
    this.#folder = mkdtempSync(join(tmpdir(), 'sqlsync-storm-'));
    this.#random = new Random(seed);
    this.#historyOptions = { seed, cells };
    this.#pauseMs = pauseMs;
    this.history = new History(this.#historyOptions);
    this.#commands = new DisturbedCommands(new Commands(this.#folder, undefined), this.#random, this.broken);
    makeHistory(this.origin, this.#historyOptions);
    this.#store = new StormStore(this, new Random(this.#random.uint32()), {
      store: join(this.#folder, 'store'),
      folder: this.#folder,
    });
  }

  get figures(): CommandFigures {
    return this.#commands.figures;
  }

  get origin(): string {
    return join(this.#folder, 'origin.db');
  }

  /** Rages for so long, and then proves that all is well without further faults. `broken` has the broken promises. */
  async run(durationMs: number): Promise<void> {
    await this.#store.init();
    for (let i = 0; i < WRITERS; i++) this.#writers.push(await this.#startWriter());
    const end = setTimeout(() => this.stop(), durationMs);
    const [middle, leaf] = [join(this.#folder, 'middle.db'), join(this.#folder, 'leaf.db')];
    await Promise.all([
      this.#repeat(() => this.#sync('sync', this.origin, middle)),
      this.#repeat(() => this.#sync('other sync', this.origin, middle)),
      this.#repeat(() => this.#sync('chained sync', middle, leaf)),
      this.#repeat(() => this.#store.backup()),
      this.#repeat(() => this.#store.care()),
      this.#repeat(() => this.#store.restoreOver()),
      this.#repeat(() => this.#killWriter()),
      this.#repeat(() => this.#read([middle, leaf])),
    ]);
    clearTimeout(end);
    await this.#proveCalm(middle, leaf);
  }

  /** Ends all processes that still run, and removes all files. */
  async end(): Promise<void> {
    for (const writer of this.#writers) await writer.stop().catch(() => {});
    rmSync(this.#folder, { recursive: true, force: true });
  }

  stop(): void {
    this.#isOver = this.#commands.isCalm = true;
  }

  /** The newest state of the database at `path`, or -1 if it does not exist yet. */
  stateNow(path: string): number {
    if (!existsSync(path)) return -1;
    return this.history.stateAt(path);
  }

  command(kind: string, args: readonly string[]): Promise<CommandEnd> {
    return this.#commands.run(kind, args);
  }

  async #sync(kind: string, origin: string, replica: string): Promise<void> {
    const before = this.stateNow(origin);
    if (before === -1) {
      await delay(50);
      return;
    }
    const { status } = await this.command(kind, [origin, replica]);
    if (status !== 0) return;
    const after = this.stateNow(replica);
    assert.ok(after >= before, `${kind} said success: state ${after} of the origin's ${before}`);
  }

  /** Reads with a connection that lives through some syncs, and with new ones. */
  async #read(paths: readonly string[]): Promise<void> {
    for (const path of paths.filter((name) => existsSync(name))) {
      const database = new Database(path, { readonly: true, timeout: 10_000 });
      try {
        for (let i = 0; i < 5; i++) {
          this.#saw(path, this.history.stateOf(database, path));
          await delay(this.#random.integer(0, 300));
        }
      } catch (error) {
        if (!(error instanceof Database.SqliteError)) throw error;
        // Because of a lock, or of the journal of a killed sync, which only a writer may roll back.
        assert.match(error.code, /^SQLITE_(BUSY|LOCKED|READONLY_ROLLBACK|READONLY_RECOVERY|CANTOPEN)/);
        this.refusedReads++;
      } finally {
        database.close();
      }
    }
    await delay(20);
  }

  #saw(path: string, n: number): void {
    this.reads++;
    const highest = this.#highest.get(path) ?? -1;
    if (n < highest) this.broken.push(`${path} went back from state ${highest} to ${n}`);
    this.#highest.set(path, Math.max(n, highest));
  }

  async #killWriter(): Promise<void> {
    await delay(this.#random.integer(200, 4000));
    const at = this.#random.integer(0, WRITERS - 1);
    const writer = this.#writers[at] as ObedientChild<'report', 'done'>;
    // A writer that ends by itself was refused.
    await writer.order('report');
    signalTo(writer.pid, 'SIGKILL');
    await writer.stop().catch(() => {});
    this.#writers[at] = await this.#startWriter();
  }

  #startWriter(): Promise<ObedientChild<'report', 'done'>> {
    const { seed, cells } = this.#historyOptions;
    const own = this.#random.uint32();
    return ObedientChild.start(WRITER, [this.origin, seed, cells, own, this.#pauseMs].map(String));
  }

  async #repeat(act: () => Promise<void>): Promise<void> {
    while (!this.#isOver) {
      try {
        await act();
      } catch (error) {
        this.broken.push(String(error));
        await delay(100);
      }
    }
  }

  async #proveCalm(middle: string, leaf: string): Promise<void> {
    for (const writer of this.#writers.splice(0)) {
      await writer.stop().catch((error: unknown) => this.broken.push(`a writer: ${String(error)}`));
    }
    const last = this.stateNow(this.origin);
    for (const [from, to] of [
      [this.origin, middle],
      [middle, leaf],
    ] as const) {
      const { status, message } = await this.command('last sync', [from, to]);
      if (status !== 0) this.broken.push(`left alone, a sync failed: ${message}`);
      else if (this.stateNow(to) !== last) this.broken.push(`left alone, ${to} is not the origin's ${last}`);
    }
    await this.#store.proveCalm().catch((error: unknown) => this.broken.push(String(error)));
  }
}
