import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Random } from '../../../fixtures/random.ts';
import { ObedientChild } from '../../support/child-orders.ts';
import { Commands } from '../command.ts';
import type { CommandEnd } from '../command.ts';
import { DisturbedCommands } from '../storm/disturbed-commands.ts';
import type { CommandFigures } from '../storm/disturbed-commands.ts';
import { History, makeHistory } from '../storm/history.ts';
import { StormStore } from '../storm/store.ts';
import type { StoreScene } from '../storm/store.ts';
import { startPlaces } from './places.ts';
import type { SoakPlace, SoakPlaces } from './places.ts';

const WRITER = fileURLToPath(new URL('../storm/writer.ts', import.meta.url));

/** Longer than most commands take at a slow service, and so short that much is deleted while backups run. */
const GRACE = '60s';

/** Commands at once, and the hosts that they come from: each has its own caches, and its own memory of stores. */
const WORKERS = 3;
const HOSTS = 2;

export interface StoresSoakOptions {
  readonly seed: number;
  /** How long each answer of a service takes. */
  readonly delayMs: number;
  readonly cells?: number;
}

/**
 * Stores elsewhere, plain and encrypted, at services that are slow and fail now and then. Several processes on two hosts
 * back up, copy, forget, prune, check and restore at random, half of them killed or stopped for a while, while an
 * application writes the database:
 *
 *     writer ─► origin ─── backup ───► S3, plain ◄─┐        ┌─ restore
 *                                      S3, encrypted ◄ copy ► … each compared with the states of the origin
 *                                      SFTP, plain ◄┘        └─ forget, prune, check
 *                                      SFTP, encrypted
 */
export class StoresSoak {
  /** The broken promises. */
  readonly broken: string[] = [];
  readonly #folder: string;
  readonly #random: Random;
  readonly #options: StoresSoakOptions & { readonly cells: number };
  readonly #history: History;
  readonly #commands: DisturbedCommands;
  readonly #stores: StormStore[] = [];
  #places: SoakPlaces | undefined;
  #isOver = false;

  constructor(options: StoresSoakOptions) {
    this.#folder = mkdtempSync(join(tmpdir(), 'sqlsync-stores-'));
    this.#options = { cells: 2000, ...options };
    this.#random = new Random(options.seed);
    this.#history = new History(this.#options);
    this.#commands = new DisturbedCommands(new Commands(this.#folder, undefined), this.#random, this.broken);
    makeHistory(this.#origin, this.#options);
  }

  get figures(): CommandFigures {
    return this.#commands.figures;
  }

  /** The number of restored databases that were compared with the states of the origin. */
  get compared(): number {
    return this.#stores.reduce((sum, { compared }) => sum + compared, 0);
  }

  async failures(): Promise<number> {
    return (await this.#places?.failures()) ?? 0;
  }

  get places(): readonly SoakPlace[] {
    return this.#places?.places ?? [];
  }

  get #origin(): string {
    return join(this.#folder, 'origin.db');
  }

  /** Goes on for so long, and then proves that all is well without further faults. */
  async run(durationMs: number): Promise<void> {
    const seed = this.#random.uint32();
    const places = (this.#places = await startPlaces(this.#folder, { ...this.#options, seed }));
    const states = new Map<string, number>();
    const workers = Array.from({ length: WORKERS }, (_, number) => this.#workerOf(number, states));
    this.#commands.isCalm = true;
    for (const { stores } of workers.slice(0, 1)) for (const store of stores) await store.init();
    this.#commands.isCalm = false;
    const { cells } = this.#options;
    const writerArgs = [this.#origin, this.#options.seed, cells, this.#random.uint32(), 200].map(String);
    const writer = await ObedientChild.start(WRITER, writerArgs);
    const end = setTimeout(() => this.stop(), durationMs);
    await Promise.all(workers.map((worker) => this.#work(worker)));
    clearTimeout(end);
    this.stop();
    await writer.stop().catch((error: unknown) => this.broken.push(`the writer: ${String(error)}`));
    await places.calm();
    for (const store of workers[0]?.stores ?? [])
      await store.proveCalm().catch((error: unknown) => this.broken.push(String(error)));
  }

  stop(): void {
    this.#isOver = this.#commands.isCalm = true;
  }

  /** Ends the services, and removes all files. */
  async end(): Promise<void> {
    await this.#places?.stop();
    rmSync(this.#folder, { recursive: true, force: true });
  }

  #workerOf(number: number, states: Map<string, number>): Worker {
    const folder = join(this.#folder, `worker-${number}`);
    const host = join(this.#folder, `host-${number % HOSTS}`);
    const env = { ...this.#places?.envs[number % HOSTS] };
    for (const [name, kind] of [
      ['XDG_CACHE_HOME', 'cache'],
      ['XDG_STATE_HOME', 'state'],
    ] as const) {
      mkdirSync((env[name] = join(host, kind)), { recursive: true, mode: 0o700 });
    }
    const scene: StoreScene = {
      origin: this.#origin,
      stateNow: (path) => this.#history.stateAt(path),
      command: (kind, args) => this.#commands.run(kind, args, env),
    };
    const stores = this.places.map((place, i) => {
      const own = join(folder, `${i}`);
      mkdirSync(own, { recursive: true });
      const random = new Random(this.#random.uint32());
      return new StormStore(scene, random, {
        store: place.address,
        folder: own,
        grace: GRACE,
        words: this.#wordsOf(place),
        initWords: [place.isEncrypted ? '--encrypt' : '--plain'],
        states,
      });
    });
    this.#stores.push(...stores);
    return { scene, stores };
  }

  #wordsOf({ isEncrypted }: SoakPlace): string[] {
    return isEncrypted ? ['--password-file', this.#places?.passwordFile ?? ''] : [];
  }

  async #work(worker: Worker): Promise<void> {
    while (!this.#isOver) {
      const store = this.#random.pick(worker.stores);
      const what = this.#random.next();
      try {
        if (what < 0.35) await store.backup(this.#wordsOfBackup(worker.stores.indexOf(store)));
        else if (what < 0.6) await store.care();
        else if (what < 0.85) await store.restoreOver();
        else await this.#copy(worker.scene);
      } catch (error) {
        this.broken.push(String(error));
      }
    }
  }

  /** Some backups go to another store as well, which then has the same password or none. */
  #wordsOfBackup(number: number): string[] {
    const { isEncrypted } = this.places[number] as SoakPlace;
    const others = this.places.filter((place, i) => i !== number && place.isEncrypted === isEncrypted);
    if (others.length === 0 || !this.#random.chance(0.2)) return [];
    return ['--copy-to', this.#random.pick(others).address];
  }

  async #copy(scene: StoreScene): Promise<CommandEnd> {
    const from = this.#random.pick(this.places);
    const to = this.#random.pick(this.places.filter((place) => place !== from));
    const words = this.#wordsOf(to);
    if (from.isEncrypted) words.push('--from-password-file', this.#places?.passwordFile ?? '');
    if (from.isEncrypted && !to.isEncrypted) words.push('--plain');
    return scene.command('copy', ['copy', from.address, to.address, ...words]);
  }
}

/** Runs one command after another, on one host. */
interface Worker {
  readonly scene: StoreScene;
  /** In the order of the places. */
  readonly stores: readonly StormStore[];
}
