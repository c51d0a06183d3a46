/**
 * How far a copy that follows is behind its origin, and what the origin's writer feels of it: at several rates, into a
 * replica here, over SSH near and far, and into a store in a folder and at a real S3 service.
 */
import { fork, spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as delay } from 'node:timers/promises';
import Database from 'better-sqlite3';
import { makeBucket } from '../test/support/s3-bucket.ts';
import { GATEWAY_KEYS, startGateway, whyNoGateway } from '../test/support/s3-gateway.ts';
import type { Gateway } from '../test/support/s3-gateway.ts';
import { prepareBase } from './data.ts';
import type { BenchData } from './data.ts';
import { agesOf, at, samplesOfSteps, within } from './follow/ages.ts';
import type { Ages, Sample, StoredStep } from './follow/ages.ts';
import type { WriterOrder, Written } from './follow/writer.ts';
import { measureProcess } from './measure.ts';
import { figure, table } from './results.ts';
import { LOCAL_ROUTE, sshRoute } from './route.ts';
import type { Route } from './route.ts';
import { copyToDisk, WORK_DIR } from './target.ts';

export const FOLLOW_PLACES = ['local', 'ssh', 'ssh100', 'folder', 's3'] as const;
export type FollowPlace = (typeof FOLLOW_PLACES)[number];

export interface FollowBenchOptions {
  readonly data: BenchData;
  readonly exe: string;
  readonly places: readonly FollowPlace[];
  /** Commits a second. */
  readonly rates: readonly number[];
  /** Of each phase. */
  readonly seconds: number;
}

const NAMES: Record<FollowPlace, string> = {
  local: 'replica, local',
  ssh: 'replica, SSH, 0 ms',
  ssh100: 'replica, SSH, 100 ms',
  folder: 'store, folder',
  s3: 'store, S3 (Ceph)',
};
const SAMPLE_MS = 10;
/** The follower and the programs compile meanwhile. */
const WARM_UP_MS = 2000;
const PATIENCE_MS = 30_000;
const FAR = { rttMs: 100, bitsPerSecond: 1e9 };

interface Step extends StoredStep {
  readonly type: string;
  readonly bytesSent: number;
  readonly bytesReceived: number;
}

interface Measured {
  readonly alone: Written;
  readonly beside: Written;
  readonly ages: Ages;
  readonly steps: number;
  readonly wireBytes: number;
  /** What one sync of all that changed takes; undefined for a store. */
  readonly syncBytes: number | undefined;
}

export async function followSection(options: FollowBenchOptions): Promise<string> {
  const rows: string[][] = [];
  for (const place of options.places)
    for (const rate of options.rates) {
      const row = rowOf(place, rate, await measure(place, rate, options));
      console.error(row.join(' | '));
      rows.push(row);
    }
  return `Another process commits to the origin (${options.data.rows.toLocaleString('en')} rows) so many times a second: each commit changes one of
10,000 rows and a counter, with \`synchronous\` NORMAL. It does so for ${options.seconds} s alone, and then for ${options.seconds} s beside \`sqlsync follow --interval 1\`
(after ${WARM_UP_MS / 1000} s to warm up). All processes share the cores.

- **age**: how old the newest commit is that the copy has, sampled every ${SAMPLE_MS} ms; for a replica by a reader of it, for a store from its steps
  as \`follow\` tells them. With one commit a second, up to a second of it is the pause of the writer.
- **lost**: how old the oldest commit is that the copy lacks, 0 if it lacks none: what goes with the origin.
- **WAL**: its largest size in MB. **wire**: bytes of all steps, and their ratio to one sync of all that changed.

${table(
  [
    'place',
    'commits/s',
    'reached',
    'age p50 s',
    'p99',
    'max',
    '≤ 0.5 s',
    '≤ 1 s',
    '≤ 1.3 s',
    'lost p50 s',
    'p99',
    'writer p50 ms alone',
    'beside',
    'p99 alone',
    'beside',
    'WAL alone',
    'beside',
    'steps',
    'wire MB',
    'ratio',
  ],
  rows,
)}`;
}

function rowOf(place: FollowPlace, rate: number, measured: Measured): string[] {
  const { alone, beside, ages, steps, wireBytes, syncBytes } = measured;
  const { newest, lost } = ages;
  const { times } = beside;
  const seconds = (ms: number): string => figure(ms / 1000, 2);
  const percent = (limit: number): string => `${Math.round(within(newest, limit) * 100)} %`;
  const reached = ((times.length - 1) * 1000) / ((times.at(-1) ?? NaN) - (times[0] ?? NaN));
  return [
    NAMES[place],
    String(rate),
    figure(reached, 0),
    ...[0.5, 0.99, 1].map((share) => seconds(at(newest, share))),
    ...[500, 1000, 1300].map(percent),
    ...[0.5, 0.99].map((share) => seconds(at(lost, share))),
    figure(alone.p50Ms, 3),
    figure(beside.p50Ms, 3),
    figure(alone.p99Ms, 3),
    figure(beside.p99Ms, 3),
    figure(alone.walBytes / 1e6, 1),
    figure(beside.walBytes / 1e6, 1),
    String(steps),
    figure(wireBytes / 1e6, 2),
    figure(syncBytes && wireBytes / syncBytes, 2),
  ];
}

async function measure(place: FollowPlace, rate: number, options: FollowBenchOptions): Promise<Measured> {
  rmSync(WORK_DIR, { recursive: true, force: true });
  mkdirSync(WORK_DIR, { recursive: true });
  const origin = join(WORK_DIR, 'origin.db');
  copyToDisk(prepareBase(options.data), origin);
  const gateway = place === 's3' ? await gatewayOrWhy() : undefined;
  const route = await routeOf(place, options);
  const writer = await Writer.start(origin, options.data.rows);
  try {
    const target = await targetOf(place, gateway, options);
    const alone = await writer.phase(rate, () => delay(options.seconds * 1000));
    const follower = new Follower([...route.syncOptions, route.location(origin), target], options.exe);
    try {
      return {
        alone,
        ...(await measureBeside({ place, rate, origin, target, route, writer, follower }, options)),
      };
    } finally {
      await follower.end();
    }
  } finally {
    await writer.end();
    await route.close();
    await gateway?.stop();
  }
}

interface Scene {
  readonly place: FollowPlace;
  readonly rate: number;
  readonly origin: string;
  readonly target: string;
  readonly route: Route;
  readonly writer: Writer;
  readonly follower: Follower;
}

async function measureBeside(scene: Scene, options: FollowBenchOptions): Promise<Omit<Measured, 'alone'>> {
  const { place, rate, origin, target, writer, follower } = scene;
  const isStore = place === 'folder' || place === 's3';
  await follower.untilSteps(1);
  await writer.phase(rate, () => delay(WARM_UP_MS));
  await delay(WARM_UP_MS);
  const before = join(WORK_DIR, 'before.db');
  if (!isStore) await backupTo(target, before);
  const stepsBefore = follower.steps.length;
  const samples: Sample[] = [];
  const beside = await writer.phase(rate, () =>
    sampleFor(options.seconds * 1000, isStore ? undefined : target, samples),
  );
  const steps = await follower.untilCaughtUp(stepsBefore, beside);
  const taken = isStore ? samplesOfSteps(steps, beside, SAMPLE_MS) : samples;
  const wireBytes = steps.reduce((sum, { bytesSent, bytesReceived }) => sum + bytesSent + bytesReceived, 0);
  const syncBytes = isStore ? undefined : await bytesOfSync(scene, origin, before, options);
  return { beside, ages: agesOf(taken, beside), steps: steps.length, wireBytes, syncBytes };
}

/** Reads the replica all the time; just waits without one. */
async function sampleFor(ms: number, replica: string | undefined, samples: Sample[]): Promise<void> {
  if (replica === undefined) return delay(ms);
  const db = new Database(replica, { readonly: true });
  const newest = db.prepare('SELECT number FROM stamp').pluck();
  const end = performance.now() + ms;
  while (performance.now() < end) {
    samples.push({ atMs: performance.timeOrigin + performance.now(), number: newest.get() as number });
    await delay(SAMPLE_MS);
  }
  db.close();
}

async function backupTo(replica: string, path: string): Promise<void> {
  const db = new Database(replica, { readonly: true });
  await db.backup(path, { progress: () => 100_000 });
  db.close();
}

async function bytesOfSync(
  { route }: Scene,
  origin: string,
  replica: string,
  { exe }: FollowBenchOptions,
): Promise<number> {
  const args = [
    exe,
    '--json',
    '--overwrite',
    '--full',
    ...route.syncOptions,
    route.location(origin),
    replica,
  ];
  const { stdout } = await measureProcess(process.execPath, args);
  const summary = JSON.parse(stdout.trim().split('\n').at(-1) ?? '') as Step;
  return summary.bytesSent + summary.bytesReceived;
}

async function gatewayOrWhy(): Promise<Gateway> {
  const why = whyNoGateway();
  if (why !== false) throw new Error(why);
  Object.assign(process.env, GATEWAY_KEYS);
  return startGateway({ onDisk: true });
}

function routeOf(place: FollowPlace, { exe }: FollowBenchOptions): Promise<Route> {
  if (place === 'ssh') return sshRoute(exe);
  return place === 'ssh100' ? sshRoute(exe, FAR) : Promise.resolve(LOCAL_ROUTE);
}

async function targetOf(
  place: FollowPlace,
  gateway: Gateway | undefined,
  { exe }: FollowBenchOptions,
): Promise<string> {
  if (place !== 'folder' && place !== 's3') return join(WORK_DIR, 'replica.db');
  const store = gateway === undefined ? join(WORK_DIR, 'store') : `s3:${gateway.url}/bench/store`;
  if (gateway !== undefined) await makeBucket(`s3:${gateway.url}/bench/made`);
  await measureProcess(process.execPath, [exe, 'init', '-q', store]);
  return store;
}

class Writer {
  readonly #child: ChildProcess;

  static async start(path: string, rows: number): Promise<Writer> {
    const child = fork(join(import.meta.dirname, 'follow', 'writer.ts'), [path, String(rows)], {
      serialization: 'advanced',
    });
    await once(child, 'message');
    return new Writer(child);
  }

  private constructor(child: ChildProcess) {
    this.#child = child;
  }

  /** Writes until `work` is done. */
  async phase(perSecond: number, work: () => Promise<void>): Promise<Written> {
    this.#child.send({ type: 'start', perSecond } satisfies WriterOrder);
    await work();
    const written = once(this.#child, 'message');
    this.#child.send({ type: 'stop' } satisfies WriterOrder);
    return ((await written) as [Written])[0];
  }

  async end(): Promise<void> {
    const exited = once(this.#child, 'exit');
    this.#child.disconnect();
    await exited;
  }
}

class Follower {
  readonly steps: Step[] = [];
  readonly #child: ChildProcess;
  #said = '';

  constructor(args: readonly string[], exe: string) {
    this.#child = spawn(process.execPath, [exe, 'follow', '--json', ...args], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    createInterface({ input: this.#child.stdout as NodeJS.ReadableStream }).on('line', (line) => {
      const event = JSON.parse(line) as Step;
      if (event.type === 'step') this.steps.push(event);
      else this.#said += `${line}\n`;
    });
  }

  async untilSteps(count: number): Promise<void> {
    const deadline = performance.now() + PATIENCE_MS * 4;
    while (this.steps.length < count) {
      if (performance.now() > deadline || this.#child.exitCode !== null)
        throw new Error(`no step came: ${this.#said}`);
      await delay(20);
    }
  }

  /** The steps after the first `before` ones, once one of them has the last commit. */
  async untilCaughtUp(before: number, { times }: Written): Promise<Step[]> {
    const last = times.at(-1) ?? 0;
    const deadline = performance.now() + PATIENCE_MS;
    while (!this.steps.slice(before).some(({ atMs, durationMs }) => atMs - durationMs >= last)) {
      if (performance.now() > deadline) throw new Error(`the last commit did not come: ${this.#said}`);
      await delay(20);
    }
    return this.steps.slice(before);
  }

  async end(): Promise<void> {
    if (this.#child.exitCode !== null) return;
    const exited = once(this.#child, 'exit');
    this.#child.kill('SIGTERM');
    await exited;
  }
}
