import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import type { Random } from '../../fixtures/random.ts';
import { sha256File } from '../support/compare.ts';
import { assertOneSnapshot, nextStamp } from '../support/stamped-database.ts';
import type { CommandEnd, Commands, RunningCommand } from './command.ts';

/** Short, so that much is deleted while backups run; a backup that takes half of it is refused. */
const GRACE = '30s';
const KEEP_LAST = 6;

/** The time of a backup, until the soak has measured some. */
const FIRST_GUESS_MS = 1000;

/** The number of turns between two checks of the whole store. */
const CHECK_EVERY = 8;

/** The exit statuses for origin, locks, connection and STORE_PRUNED, and those of a command that was ended. */
const CLEAR_STATUSES: ReadonlySet<number | null> = new Set([0, 3, 5, 15, 18, 130]);

/** The counts of backups and other commands, and the backups' outcomes. */
export interface BackupFigures {
  readonly outcomes: Record<string, number>;
  restores: number;
  checks: number;
}

/**
 * Backups as from a crontab, with `--keep-…` and `--prune`, some of them killed, some two at once. The
 * content of a snapshot is recorded when it is restored for the first time, right after its backup; every
 * later restore must give the same bytes.
 */
export class SoakBackups {
  readonly figures: BackupFigures = { outcomes: {}, restores: 0, checks: 0 };
  readonly #folder: string;
  readonly #store: string;
  readonly #origin: string;
  readonly #random: Random;
  readonly #commands: Commands;
  /** SHA-256 of the restored database of each snapshot, by id. */
  readonly #recorded = new Map<string, string>();
  /** Snapshots that no policy takes away. */
  readonly #tagged: string[] = [];
  #typicalMs = FIRST_GUESS_MS;
  #turns = 0;

  static async start(
    folder: string,
    origin: string,
    random: Random,
    commands: Commands,
  ): Promise<SoakBackups> {
    const backups = new SoakBackups(folder, origin, random, commands);
    await backups.#succeed(['init', backups.#store, '--grace', GRACE]);
    return backups;
  }

  private constructor(folder: string, origin: string, random: Random, commands: Commands) {
    this.#folder = folder;
    this.#store = join(folder, 'store');
    this.#origin = origin;
    this.#random = random;
    this.#commands = commands;
  }

  /** `before` is a stamp that the origin has by now. Throws an error that names a broken promise. */
  async turn(before: number): Promise<void> {
    this.#turns++;
    const isTagged = this.#random.chance(0.1);
    const isKilled = this.#random.chance(0.3);
    const running = this.#start(isTagged);
    const other = this.#random.chance(0.2) ? this.#start(false) : undefined;
    if (isKilled) await this.#kill(running);
    const end = await running.ended;
    const otherEnd = await other?.ended;
    const after = nextStamp();
    for (const each of [end, ...(otherEnd === undefined ? [] : [otherEnd])]) {
      this.#count(each, isKilled && each === end);
      const id = idIn(each);
      if (id === undefined) continue;
      // Another backup with --keep-last may have taken it away again only after as many as it keeps.
      const restored = await this.#restore(id);
      assert.ok(
        restored >= before && restored <= after,
        `snapshot ${id}: stamp ${restored}, ${before} to ${after}`,
      );
      if (isTagged && each === end) this.#tagged.push(id);
    }
    await this.#restoreOld();
    if (this.#turns % CHECK_EVERY === 0) await this.#check();
  }

  /** Without further faults, every snapshot restores to its content, and the store has no damage. */
  async end(): Promise<void> {
    for (const id of await this.#list()) await this.#restore(id);
    await this.#check();
  }

  #start(isTagged: boolean): RunningCommand {
    const keep = ['--keep-last', String(KEEP_LAST), '--keep-tag', 'kept', '--prune'];
    return this.#commands.run([
      'backup',
      this.#origin,
      this.#store,
      ...keep,
      ...(isTagged ? ['--tag', 'kept'] : []),
    ]);
  }

  /** A random moment within the time of a backup. */
  async #kill({ nearPid, ended }: RunningCommand): Promise<void> {
    await Promise.race([delay(this.#random.next() * this.#typicalMs), ended]);
    try {
      process.kill(nearPid, 'SIGKILL');
    } catch {
      // It has ended by itself.
    }
  }

  #count(end: CommandEnd, isKilled: boolean): void {
    const { status, signal, outcome, message } = end;
    const isClear = CLEAR_STATUSES.has(status) || (isKilled && signal === 'SIGKILL');
    assert.ok(isClear, `an end that says nothing: ${signal ?? status} ${outcome} ${message}`);
    const how = signal === null ? (status === 0 ? 'stored' : outcome) : `killed by ${signal}`;
    this.figures.outcomes[how] = (this.figures.outcomes[how] ?? 0) + 1;
    if (status === 0) this.#typicalMs += (end.durationMs - this.#typicalMs) / 10;
  }

  async #restoreOld(): Promise<void> {
    const ids = await this.#list();
    for (const id of this.#tagged) assert.ok(ids.includes(id), `snapshot ${id} was lost`);
    if (ids.length > 0) await this.#restore(this.#random.pick(ids));
  }

  /** Resolves to the stamp of the restored database. */
  async #restore(id: string): Promise<number> {
    const folder = mkdtempSync(join(this.#folder, 'restored-'));
    try {
      const target = join(folder, 'restored.db');
      await this.#succeed(['restore', `${this.#store}#${id}`, target]);
      assert.ok(existsSync(target));
      const sha256 = sha256File(target);
      const recorded = this.#recorded.get(id) ?? sha256;
      assert.equal(sha256, recorded, `snapshot ${id} is another one than it was`);
      this.#recorded.set(id, sha256);
      this.figures.restores++;
      return assertOneSnapshot(target).stamp ?? -1;
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  }

  async #check(): Promise<void> {
    await this.#succeed(['check', this.#store, '--read-data']);
    this.figures.checks++;
  }

  async #list(): Promise<string[]> {
    const { event } = await this.#succeed(['snapshots', this.#store]);
    return (event['snapshots'] as { id: string }[]).map(({ id }) => id);
  }

  async #succeed(args: readonly string[]): Promise<CommandEnd> {
    const end = await this.#commands.run(args).ended;
    const said = `${end.outcome} ${end.message} ${JSON.stringify(end.event['problems'] ?? '')}`;
    assert.equal(end.status, 0, `${args.join(' ')}: ${said}`);
    return end;
  }
}

function idIn({ status, event }: CommandEnd): string | undefined {
  const backups = event['backups'] as { snapshot: { id: string } }[] | undefined;
  return status === 0 ? backups?.[0]?.snapshot.id : undefined;
}
