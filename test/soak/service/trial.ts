import assert from 'node:assert/strict';
import {
  appendFileSync,
  closeSync,
  existsSync,
  openSync,
  readFileSync,
  rmSync,
  statSync,
  writeSync,
} from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { Random } from '../../../fixtures/random.ts';
import { summaryOf, sqlsync } from '../../cli/command.ts';
import { ObedientChild } from '../../support/child-orders.ts';
import type { Level } from '../../../src/service/state/judge.ts';
import { Looks } from './looks.ts';
import { CELLS, REPLICA_EVERY_S, STORE_EVERY_S } from './scene.ts';
import type { Origin, Scene } from './scene.ts';
import { TriedService } from './tried-service.ts';
import { turnLine, wrongTurns } from './turns.ts';

const WRITERS = fileURLToPath(new URL('writers.ts', import.meta.url));

/** How long the service may take to notice something: an interval, the wait for a place, and a busy machine. */
const NOTICE_MS = 90_000;

/** What happens between two looks; nothing, too. */
const EVENTS = [
  'kill',
  'stop',
  'reload',
  'reload',
  'broken reload',
  'host',
  'restore',
  'restore',
  '',
  '',
] as const;

/** How long the last copies may take when nothing is written any more. */
const QUIET_MS = 240_000;

const PAUSE_MS = 60;

export interface TrialOptions {
  readonly minutes: number;
  readonly seed: number;
  /** How many databases have 1 GB. */
  readonly large: number;
}

/**
 * About thirty databases with one service, which is killed, stopped and reloaded while processes write, a host goes away,
 * and databases appear, go and get damaged:
 *
 *     writers ─► databases ─► service ─► replicas here, at a host   each a state that its database had
 *                   ▲            │   └─► stores in a folder, S3, SFTP
 *       delete, damage, appear   └─ status ─► compared with what the trial knows
 */
export class Trial {
  readonly #scene: Scene;
  readonly #options: TrialOptions;
  readonly #report: (text: string) => void;
  readonly #random: Random;
  readonly #looks: Looks;
  readonly #service: TriedService;
  readonly #events: Record<string, number> = {};
  /** The next events, the last first. */
  readonly #dealt: string[] = [];
  #writers: ObedientChild<'turn', 'done'> | undefined;
  #hasExtra = false;
  #extraSinceMs = -Infinity;
  #isAway = false;
  #hostSinceMs = -Infinity;
  /** When the service last began to live, or to live again. */
  #aliveSinceMs = -Infinity;
  #deletedAtMs: number | undefined;
  #damagedAtMs: number | undefined;
  #appearedAtMs: number | undefined;
  #snapshots = 0;

  constructor(scene: Scene, options: TrialOptions, report: (text: string) => void) {
    this.#scene = scene;
    this.#options = options;
    this.#report = report;
    this.#random = new Random(options.seed);
    this.#looks = new Looks(scene, report);
    this.#service = new TriedService(scene, this.#looks);
  }

  async run(): Promise<void> {
    for (const { address, words } of this.#scene.stores) {
      const kind = words.length > 0 ? '--encrypt' : '--plain';
      await summaryOf(['init', address, kind, ...words], { cwd: this.#scene.path(), env: this.#scene.env });
    }
    const written = this.#scene.origins.filter(({ path }) => !/deleted|damaged/.test(path));
    const pairs = written.flatMap(({ seed, path }) => [String(seed), path]);
    const words = [this.#random.uint32(), CELLS, PAUSE_MS].map(String);
    this.#writers = await ObedientChild.start(WRITERS, [...words, ...pairs]);
    this.#scene.configure({ hasExtra: false });
    await this.#start();
    const begunAt = performance.now();
    const lengthMs = this.#options.minutes * 60_000;
    for (let part = 0; part < 1; part = (performance.now() - begunAt) / lengthMs) {
      await this.#step(part).catch((error: unknown) => this.#report(String(error)));
      await delay(this.#random.integer(1000, 4000));
    }
    await this.#calm();
  }

  /** Lines for people. */
  figures(): string[] {
    const events = Object.entries(this.#events).map(([name, times]) => `${name} ${times}`);
    return [
      `${this.#scene.origins.length} databases, ${this.#options.large} of them of 1 GB; ${events.join(', ')}`,
      `looks at the status: ${this.#looks.looks}; replicas compared: ${this.#looks.compared}; snapshots restored: ${this.#snapshots}`,
      `copies by hooks: ${this.#turns().match(/^begin/gm)?.length ?? 0}`,
      ...this.#service.figures(),
    ];
  }

  async abandon(): Promise<void> {
    await this.#writers?.kill();
    await this.#service.kill();
  }

  async #start(): Promise<void> {
    await this.#service.start();
    this.#aliveSinceMs = Date.now();
  }

  /** Kills come in the first half only: in the second one memory has to stay level. */
  async #step(part: number): Promise<void> {
    if (part > 0.1) this.#changeDatabases(part);
    const event = this.#nextEvent();
    if (event === 'kill' && part < 0.5) await this.#kill();
    else if (event === 'stop') await this.#stopForAWhile();
    else if (event === 'reload') await this.#reload();
    else if (event === 'broken reload') await this.#reloadBroken();
    else if (event === 'host') await this.#turnHost();
    else if (event === 'restore') await this.#restoreSome();
    await this.#look();
    await this.#service.sample();
  }

  /** Each event comes before any comes again, so that a short run has all of them. */
  #nextEvent(): string {
    if (this.#dealt.length === 0) {
      const left: string[] = [...EVENTS];
      while (left.length > 0) this.#dealt.push(...left.splice(this.#random.integer(0, left.length - 1), 1));
    }
    return this.#dealt.pop() as string;
  }

  #count(name: string): void {
    this.#events[name] = (this.#events[name] ?? 0) + 1;
  }

  #look(): Promise<unknown> {
    return this.#looks.look({
      isRunning: this.#service.isAnswering,
      levels: (origin) => this.#levelsOf(origin),
      isAsked: (origin) => {
        const sinceMs = Date.now() - NOTICE_MS;
        if (origin.kind !== 'extra') return this.#aliveSinceMs < sinceMs ? true : undefined;
        return this.#extraSinceMs < sinceMs && this.#aliveSinceMs < sinceMs ? this.#hasExtra : undefined;
      },
    });
  }

  /** Those that are right by what the trial did, and either one while the service may not have noticed yet. */
  #levelsOf({ path, kind }: Origin): readonly Level[] {
    const noticed = (sinceMs: number): boolean =>
      Math.max(sinceMs, this.#aliveSinceMs) < Date.now() - NOTICE_MS;
    const turning = (atMs: number | undefined, level: Level): readonly Level[] =>
      atMs === undefined ? ['fine'] : noticed(atMs) ? [level] : ['fine', level];
    if (path.includes('deleted')) return turning(this.#deletedAtMs, 'gone');
    if (path.includes('damaged')) return turning(this.#damagedAtMs, 'failing');
    // A service that fails often enough also fails a command now and then.
    if (kind === 's3') return ['fine', 'failing'];
    // A service that is stopped for a while gives no sign of life.
    if (kind === 'follow' && !this.#service.isAnswering) return ['fine', 'late'];
    if (kind !== 'host' && kind !== 'sftp') return ['fine'];
    if (!noticed(this.#hostSinceMs)) return ['fine', 'failing'];
    return [this.#isAway ? 'failing' : 'fine'];
  }

  #changeDatabases(part: number): void {
    if (this.#deletedAtMs === undefined) {
      const { path } = this.#named('deleted');
      for (const suffix of ['', '-wal', '-shm']) rmSync(path + suffix, { force: true });
      this.#deletedAtMs = Date.now();
    }
    if (part > 0.2 && this.#damagedAtMs === undefined) {
      overwritePages(this.#named('damaged').path);
      this.#damagedAtMs = Date.now();
    }
    if (part > 0.3 && this.#appearedAtMs === undefined) {
      this.#scene.appear('appeared');
      this.#appearedAtMs = Date.now();
      this.#aliveSinceMs = Date.now();
    }
  }

  #named(name: string): Origin {
    const found = this.#scene.origins.find(({ path }) => path.endsWith(`/${name}.db`));
    assert.ok(found !== undefined, name);
    return found;
  }

  async #kill(): Promise<void> {
    this.#count('kill -9');
    await this.#service.kill();
    appendFileSync(this.#scene.path('turns'), turnLine('killed'));
    await this.#look();
    await this.#start();
  }

  async #stopForAWhile(): Promise<void> {
    this.#count('SIGSTOP');
    await this.#service.whileStopped(async () => {
      await this.#look();
      await delay(this.#random.integer(1000, 5000));
    });
  }

  async #reload(): Promise<void> {
    this.#count('reload');
    this.#hasExtra = !this.#hasExtra;
    this.#scene.configure({ hasExtra: this.#hasExtra });
    await this.#service.reload('reloaded');
    this.#extraSinceMs = Date.now();
    if (!this.#hasExtra) {
      const { path } = this.#named('extra');
      appendFileSync(this.#scene.path('turns'), turnLine('removed', path));
    }
  }

  async #reloadBroken(): Promise<void> {
    this.#count('refused reload');
    this.#scene.configure({ hasExtra: !this.#hasExtra, broken: '  - path: x.db\n    targetz: []\n' });
    await this.#service.reload('failure');
    const status = await this.#looks.look({
      isRunning: true,
      levels: (origin) => this.#levelsOf(origin),
      isAsked: () => undefined,
    });
    if (status?.configFailure === undefined || status.level === 'fine')
      this.#report('the status does not say that the file was refused');
    this.#scene.configure({ hasExtra: this.#hasExtra });
    await this.#service.reload('reloaded');
  }

  async #turnHost(): Promise<void> {
    const sshd = this.#scene.host?.sshd;
    if (sshd === undefined) return;
    this.#count(this.#isAway ? 'host came back' : 'host went away');
    await (this.#isAway ? sshd.comeBack() : sshd.goAway());
    this.#isAway = !this.#isAway;
    this.#hostSinceMs = Date.now();
  }

  /** The newest snapshot of a database of some store; one that is forgotten meanwhile cannot be restored. */
  async #restoreSome(): Promise<void> {
    const status = await this.#service.status();
    const origins = this.#scene.origins.filter(({ replica }) => replica === undefined);
    const origin = this.#random.pick(origins);
    const snapshot = status.targets.find((target) => target.origin === origin.path)?.snapshot;
    if (snapshot !== undefined) await this.#restore(origin, snapshot);
  }

  /** Undefined if it cannot be restored. */
  async #restore({ kind, history }: Origin, snapshot: string): Promise<number | undefined> {
    const store = this.#scene.stores.find((each) => each.kind === kind);
    assert.ok(store !== undefined);
    const to = this.#scene.path('restored.db');
    const args = ['restore', `${store.address}#${snapshot}`, to, ...store.words];
    const { status } = await sqlsync(args, { cwd: this.#scene.path(), env: this.#scene.env });
    if (status !== 0) return undefined;
    this.#snapshots++;
    const state = history.stateAt(to);
    for (const suffix of ['', '-wal', '-shm']) rmSync(to + suffix, { force: true });
    return state;
  }

  /** Nothing is written or goes wrong any more: every copy has to be the last state. */
  async #calm(): Promise<void> {
    await this.#writers?.order('turn');
    if (this.#isAway) await this.#turnHost();
    if (!this.#hasExtra) await this.#reload();
    await this.#scene.calm();
    const quietAtMs = Date.now();
    const kept = this.#scene.origins.filter(({ path }) => !/deleted|damaged/.test(path));
    const missing = await this.#service.untilCopied(kept, quietAtMs, QUIET_MS);
    for (const each of missing) this.#report(`lost: no copy of ${each} within ${QUIET_MS / 1000} s of quiet`);
    const { targets } = await this.#service.status();
    for (const origin of kept) {
      const snapshot = targets.find((target) => target.origin === origin.path)?.snapshot;
      const state =
        origin.replica === undefined
          ? await this.#restore(origin, snapshot ?? '')
          : origin.history.stateAt(origin.replica);
      const last = this.#looks.stateNow(origin);
      if (state !== last) this.#report(`${origin.path}: state ${last}, its copy has ${state}`);
    }
    await this.#service.sample();
    for (const growth of this.#service.growths()) this.#report(growth);
    await this.#service.stop();
    for (const wrong of wrongTurns(this.#turns(), (place) => this.#intervalOf(place))) this.#report(wrong);
  }

  #intervalOf(place: string): number {
    const isStore = this.#scene.stores.some(({ address }) => address === place);
    return (isStore ? STORE_EVERY_S : REPLICA_EVERY_S) * 1000;
  }

  #turns(): string {
    const file = this.#scene.path('turns');
    return existsSync(file) ? readFileSync(file, 'utf8') : '';
  }
}

/** Puts other bytes in the place of pages in the middle. */
function overwritePages(path: string): void {
  const descriptor = openSync(path, 'r+');
  const from = Math.floor(statSync(path).size / 2048) * 1024;
  writeSync(descriptor, Buffer.alloc(16 * 1024, 0xa5), 0, 16 * 1024, from);
  closeSync(descriptor);
}
