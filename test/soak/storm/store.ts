import assert from 'node:assert/strict';
import { existsSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import type { Random } from '../../../fixtures/random.ts';
import type { CommandEnd } from '../command.ts';
import type { Storm } from './storm.ts';

/** So short that much is deleted while backups run. */
const GRACE = '30s';

/** The store of a storm: backups, and all commands that take snapshots away, beside restores of them. */
export class StormStore {
  readonly #storm: Storm;
  readonly #random: Random;
  readonly #store: string;
  /** The database over which snapshots are restored, and the one where each is examined. */
  readonly #restored: string;
  readonly #fresh: string;
  /** The state of each snapshot, by id, once it was restored. */
  readonly #states = new Map<string, number>();

  constructor(storm: Storm, folder: string, random: Random) {
    this.#storm = storm;
    this.#random = random;
    this.#store = join(folder, 'store');
    this.#restored = join(folder, 'restored.db');
    this.#fresh = join(folder, 'fresh.db');
  }

  async init(): Promise<void> {
    // Without a fault yet.
    for (;;) {
      const { status, message } = await this.#storm.command('init', ['init', this.#store, '--grace', GRACE]);
      if (status === 0) return;
      rmSync(this.#store, { recursive: true, force: true });
      assert.ok(status === null, `init: ${message}`);
    }
  }

  async backup(): Promise<void> {
    const before = this.#storm.stateNow(this.#storm.origin);
    const end = await this.#storm.command('backup', ['backup', this.#storm.origin, this.#store]);
    const id = idIn(end);
    if (id === undefined) return;
    const state = await this.#restoreFresh(id);
    // Another command may have forgotten it meanwhile.
    if (state === undefined) return;
    const after = this.#storm.stateNow(this.#storm.origin);
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
    const { status, event } = await this.#storm.command(kind, args);
    if (status === 19) throw new Error(`${kind} found damage: ${JSON.stringify(event['problems'])}`);
  }

  /** Over the database that the last restore left, in any state. */
  async restoreOver(): Promise<void> {
    const ids = await this.#list();
    if (ids.length === 0) {
      await delay(100);
      return;
    }
    const id = this.#random.pick(ids);
    const over = ['restore', `${this.#store}#${id}`, this.#restored, '--overwrite'];
    const { status } = await this.#storm.command('restore --overwrite', over);
    if (!existsSync(this.#restored)) return;
    const state = this.#storm.stateNow(this.#restored);
    if (status === 0) this.#is(id, state);
  }

  /** Checks that every remaining snapshot restores to its state, and that the store has no damage. */
  async proveCalm(): Promise<void> {
    for (const id of await this.#list()) {
      const state = await this.#restoreFresh(id);
      assert.notEqual(state, undefined, `left alone, snapshot ${id} cannot be restored`);
    }
    const { status, event } = await this.#storm.command('last check', ['check', this.#store, '--read-data']);
    assert.equal(status, 0, `left alone, the store is damaged: ${JSON.stringify(event)}`);
  }

  /** Undefined if the restore failed, as for a forgotten snapshot or a killed command. */
  async #restoreFresh(id: string): Promise<number | undefined> {
    const { status } = await this.#storm.command('restore', ['restore', `${this.#store}#${id}`, this.#fresh]);
    try {
      if (!existsSync(this.#fresh)) return undefined;
      const state = this.#storm.stateNow(this.#fresh);
      if (status !== 0) return undefined;
      this.#is(id, state);
      return state;
    } finally {
      for (const suffix of ['', '-wal', '-shm', '-journal']) rmSync(this.#fresh + suffix, { force: true });
    }
  }

  #is(id: string, state: number): void {
    const known = this.#states.get(id) ?? state;
    this.#states.set(id, known);
    assert.equal(state, known, `snapshot ${id} restored to another state than before`);
  }

  async #list(): Promise<string[]> {
    const { status, event } = await this.#storm.command('snapshots', ['snapshots', this.#store]);
    return status === 0 ? (event['snapshots'] as { id: string }[]).map(({ id }) => id) : [];
  }
}

function idIn({ status, event }: CommandEnd): string | undefined {
  const backups = event['backups'] as { snapshot: { id: string } }[] | undefined;
  return status === 0 ? backups?.[0]?.snapshot.id : undefined;
}
