import assert from 'node:assert/strict';
import { existsSync, readFileSync, readdirSync } from 'node:fs';
import Database from 'better-sqlite3';
import { LEVEL_STATUS } from '../../../src/service/state/judge.ts';
import type { Level, Status, TargetStatus } from '../../../src/service/state/judge.ts';
import { jsonLines, sqlsync } from '../../cli/command.ts';
import { SECRETS } from './scene.ts';
import type { Origin, Scene } from './scene.ts';

/** What the trial knows at a look. */
export interface Known {
  readonly isRunning: boolean;
  /** The levels that the status may give to a target. */
  levels(origin: Origin): readonly Level[];
  /** True if there is a target of this database, false if there is none, undefined if either may be. */
  isAsked(origin: Origin): boolean | undefined;
}

/** Asks for the status, and compares it with what the trial knows. */
export class Looks {
  looks = 0;
  /** The number of replicas whose state was compared with what the status says of them. */
  compared = 0;
  readonly #scene: Scene;
  readonly #report: (text: string) => void;
  /** When each database was seen in which state, oldest first. */
  readonly #seen = new Map<string, [atMs: number, state: number][]>();

  constructor(scene: Scene, report: (text: string) => void) {
    this.#scene = scene;
    this.#report = report;
  }

  /** Never rejects: what is wrong is reported. */
  async look(known: Known): Promise<Status | undefined> {
    try {
      return await this.#look(known);
    } catch (error) {
      this.#report(String(error));
      return undefined;
    }
  }

  async #look(known: Known): Promise<Status> {
    this.looks++;
    for (const origin of this.#scene.origins) if (existsSync(origin.path)) this.#note(origin);
    const run = await sqlsync(['status', '--json'], { cwd: this.#scene.path(), env: this.#scene.env });
    this.hasNoSecret('status', run.stdout + run.stderr);
    const status = jsonLines(run.stdout).at(-1) as unknown as Status & { type: string };
    assert.equal(status?.type, 'summary', `status: ${run.stdout}${run.stderr}`);
    assert.equal(status.isServiceRunning, known.isRunning, 'whether the service runs');
    assert.equal(run.status, LEVEL_STATUS[status.level], 'the exit status of the level');
    for (const origin of this.#scene.origins) {
      const target = status.targets.find((each) => each.origin === origin.path);
      const isAsked = known.isAsked(origin);
      if (isAsked !== undefined && isAsked !== (target !== undefined))
        this.#report(`${origin.path}: ${isAsked ? 'has no target' : 'has a target'}`);
      if (target !== undefined) this.#compare(origin, target, known.levels(origin));
    }
    return status;
  }

  /** The state of a database, which the trial's own writers have made. */
  stateNow({ path }: Origin): number {
    const database = new Database(path, { readonly: true, timeout: 10_000 });
    try {
      return database.prepare('SELECT n FROM state').pluck().get() as number;
    } finally {
      database.close();
    }
  }

  hasNoSecret(where: string, text: string): void {
    for (const secret of Object.values(SECRETS))
      if (text.includes(secret)) this.#report(`${where} shows ${secret}`);
    const key = this.#scene.env['AWS_SECRET_ACCESS_KEY'] ?? '';
    if (text.includes(key)) this.#report(`${where} shows the key of the bucket`);
  }

  /** All that the service keeps. */
  filesHaveNoSecret(): void {
    const folder = this.#scene.path('state');
    for (const name of readdirSync(folder)) {
      if (name.endsWith('.json')) this.hasNoSecret(name, readFileSync(`${folder}/${name}`, 'utf8'));
    }
  }

  #note(origin: Origin): void {
    // A damaged database may not be readable.
    if (origin.path.includes('damaged')) return;
    const seen = this.#seen.get(origin.path) ?? [];
    this.#seen.set(origin.path, seen);
    const atMs = Date.now();
    seen.push([atMs, this.stateNow(origin)]);
  }

  #compare(origin: Origin, target: TargetStatus, levels: readonly Level[]): void {
    const { level, why, lastSuccessAtMs } = target;
    if (!levels.includes(level))
      this.#report(`${origin.path} is ${level} (${why}), and should be ${levels.join(' or ')}`);
    const { replica } = origin;
    if (replica === undefined || lastSuccessAtMs === undefined || origin.path.includes('damaged')) return;
    const least = this.#seen.get(origin.path)?.findLast(([atMs]) => atMs < lastSuccessAtMs)?.[1] ?? 0;
    const state = origin.history.stateAt(replica);
    this.compared++;
    if (state < least) this.#report(`${replica} has state ${state}; its status says at least ${least}`);
  }
}
