import assert from 'node:assert/strict';
import { existsSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import type { Random } from '../../../fixtures/random.ts';
import type { CommandEnd } from '../command.ts';

/** So short that much is deleted while backups run. */
const GRACE = '30s';

/** What a store of a storm needs of it. */
export interface StoreScene {
  readonly origin: string;
  /** The newest state of the database at `path`, or -1 if it does not exist yet. */
  stateNow(path: string): number;
  /** Runs a command to its end, perhaps with a fault. */
  command(kind: string, args: readonly string[]): Promise<CommandEnd>;
}

export interface StormStoreOptions {
  /** Its folder or address. */
  readonly store: string;
  /** For restored databases. */
  readonly folder: string;
  readonly grace?: string;
  /** Further words of every command, and of `init`. */
  readonly words?: readonly string[];
  readonly initWords?: readonly string[];
  /** The state of each snapshot, by the id of the first of its copies, once it was restored. */
  readonly states?: Map<string, number>;
}

interface Listed {
  readonly id: string;
  readonly original?: string;
}

/** A store of a storm: backups, and all commands that take snapshots away, beside restores of them. */
export class StormStore {
  readonly #scene: StoreScene;
  readonly #random: Random;
  readonly #store: string;
  readonly #grace: string;
  readonly #words: readonly string[];
  readonly #initWords: readonly string[];
  /** The database over which snapshots are restored, and the one where each is examined. */
  readonly #restored: string;
  readonly #fresh: string;
  readonly #states: Map<string, number>;
  /** The number of restored databases whose state was compared with what it has to be. */
  compared = 0;

  constructor(scene: StoreScene, random: Random, options: StormStoreOptions) {
    this.#scene = scene;
    this.#random = random;
    this.#store = options.store;
    this.#grace = options.grace ?? GRACE;
    this.#words = options.words ?? [];
    this.#initWords = options.initWords ?? [];
    this.#restored = join(options.folder, 'restored.db');
    this.#fresh = join(options.folder, 'fresh.db');
    this.#states = options.states ?? new Map();
  }

  async init(): Promise<void> {
    // Without a fault yet.
    for (;;) {
      const { status, message } = await this.#command('init', [
        'init',
        this.#store,
        '--grace',
        this.#grace,
        ...this.#initWords,
      ]);
      if (status === 0) return;
      rmSync(this.#store, { recursive: true, force: true });
      assert.ok(status === null, `init: ${message}`);
    }
  }

  /** @param words - further words of the command. */
  async backup(words: readonly string[] = []): Promise<void> {
    const { origin } = this.#scene;
    const before = this.#scene.stateNow(origin);
    const end = await this.#command('backup', ['backup', origin, this.#store, ...words]);
    const id = idIn(end);
    if (id === undefined) return;
    const state = await this.#restoreFresh({ id });
    // Another command may have forgotten it meanwhile.
    if (state === undefined) return;
    const after = this.#scene.stateNow(origin);
    assert.ok(state >= before && state <= after, `snapshot ${id}: state ${state}, ${before} to ${after}`);
  }

  /** Forgets, prunes and checks, in any order. */
  async care(): Promise<void> {
    await delay(this.#random.integer(100, 1500));
    const keep = String(this.#random.integer(3, 8));
    const [kind, args] = this.#random.pick([
      ['forget', ['forget', this.#store, '--keep-last', keep]],
      ['forget and prune', ['forget', this.#store, '--keep-last', keep, '--prune']],
      ['prune', ['prune', this.#store]],
      ['check', ['check', this.#store, '--read-data']],
    ] as const);
    const { status, event } = await this.#command(kind, args);
    if (status === 19) throw new Error(`${kind} found damage: ${JSON.stringify(event['problems'])}`);
  }

  /** Over the database that the last restore left, in any state. */
  async restoreOver(): Promise<void> {
    const snapshots = await this.#list();
    if (snapshots.length === 0) {
      await delay(100);
      return;
    }
    const snapshot = this.#random.pick(snapshots);
    const over = ['restore', `${this.#store}#${snapshot.id}`, this.#restored, '--overwrite'];
    const { status } = await this.#command('restore --overwrite', over);
    if (!existsSync(this.#restored)) return;
    const state = this.#scene.stateNow(this.#restored);
    if (status === 0) this.#is(snapshot, state);
  }

  /** Checks that every remaining snapshot restores to its state, and that the store has no damage. */
  async proveCalm(): Promise<void> {
    for (const snapshot of await this.#list()) {
      const state = await this.#restoreFresh(snapshot);
      assert.notEqual(state, undefined, `left alone, snapshot ${snapshot.id} cannot be restored`);
    }
    const { status, event } = await this.#command('last check', ['check', this.#store, '--read-data']);
    assert.equal(status, 0, `left alone, the store is damaged: ${JSON.stringify(event)}`);
  }

  /** Undefined if the restore failed, as for a forgotten snapshot or a killed command. */
  async #restoreFresh(snapshot: Listed): Promise<number | undefined> {
    const from = `${this.#store}#${snapshot.id}`;
    const { status } = await this.#command('restore', ['restore', from, this.#fresh]);
    try {
      if (!existsSync(this.#fresh)) return undefined;
      const state = this.#scene.stateNow(this.#fresh);
      if (status !== 0) return undefined;
      this.#is(snapshot, state);
      return state;
    } finally {
      for (const suffix of ['', '-wal', '-shm', '-journal']) rmSync(this.#fresh + suffix, { force: true });
    }
  }

  #is({ id, original = id }: Listed, state: number): void {
    const known = this.#states.get(original) ?? state;
    this.#states.set(original, known);
    assert.equal(state, known, `snapshot ${id} restored to another state than before`);
    this.compared++;
  }

  async #list(): Promise<Listed[]> {
    const { status, event } = await this.#command('snapshots', ['snapshots', this.#store]);
    return status === 0 ? (event['snapshots'] as Listed[]) : [];
  }

  #command(kind: string, args: readonly string[]): Promise<CommandEnd> {
    return this.#scene.command(kind, [...args, ...this.#words]);
  }
}

function idIn({ status, event }: CommandEnd): string | undefined {
  const backups = event['backups'] as { snapshot: { id: string } }[] | undefined;
  return status === 0 ? backups?.[0]?.snapshot.id : undefined;
}
