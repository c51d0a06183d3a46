import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, renameSync, rmSync, statfsSync, watch } from 'node:fs';
import { join } from 'node:path';
import { Random } from '../../../../fixtures/random.ts';
import type { FaultOptions, FaultRow } from '../group.ts';
import { includesFault, pick, Tally } from '../group.ts';
import { assertClear } from './command.ts';
import type { CommandEnd } from './command.ts';
import { judgeJob, prepareJob, runJob, STORE_JOBS } from './jobs.ts';
import type { StoreJob } from './jobs.ts';
import { StoreScene } from './scene.ts';
import type { StoreRun } from './scene.ts';

const BLOCK_BYTES = 4096;
const AMPLE = 'size=16m';

/** Free blocks on a disk that fills up. */
const FREE_BLOCKS = Array.from({ length: 24 }, (_, i) => 1 + i * 3);

/** Folders of a store in which a file appears in the middle of a backup. */
const MOMENTS = ['packs', 'indexes', 'snapshots'] as const;

/** Commands that only read work on a store that cannot be written. */
const READING: ReadonlySet<string> = new Set(['check', 'restore of a new file']);

type Trial = (scene: StoreScene, job: StoreJob, tally: Tally, options: FaultOptions) => Promise<void>;

const TRIALS: Readonly<Record<string, Trial>> = {
  'a disk that fills up': fillDisk,
  'a file system that is read-only': readOnly,
  'a store that vanishes': vanish,
};

/** The surroundings of a store fail: room, rights, the file system that it is on. */
export async function* giveOut(folder: string, options: FaultOptions): AsyncGenerator<FaultRow> {
  const random = new Random(options.seed);
  for (const [name, trial] of Object.entries(TRIALS)) {
    const jobs = STORE_JOBS.filter((job) => trial !== vanish || job.name.includes('backup'));
    for (const job of options.long ? jobs : [random.pick(jobs)]) {
      const tally = new Tally(`${name}: ${job.name}`);
      if (!includesFault(options, tally.fault)) continue;
      const scene = await StoreScene.make(join(folder, 'surroundings'), [job.kind]);
      try {
        await trial(scene, job, tally, options);
      } finally {
        await scene.end();
      }
      yield tally;
    }
  }
}

async function fillDisk(
  scene: StoreScene,
  job: StoreJob,
  tally: Tally,
  options: FaultOptions,
): Promise<void> {
  // A backup beside it may find the disk full as well.
  const alone = { ...job, isBesideAnother: false };
  let isEnough = false;
  for (const free of options.long ? FREE_BLOCKS : pick(FREE_BLOCKS, 1, new Random(options.seed))) {
    if (isEnough) return;
    await tally.add(`${free} free blocks`, () =>
      onOwnDisk(scene, alone, async (run, remount) => {
        const { blocks, bfree } = statfsSync(run.folder);
        remount(`size=${(blocks - bfree + free) * BLOCK_BYTES}`);
        const end = await runJob(scene, alone, run);
        remount(AMPLE);
        isEnough = end.outcome === 'done' && options.long;
        return end;
      }),
    );
  }
}

async function readOnly(scene: StoreScene, job: StoreJob, tally: Tally): Promise<void> {
  const alone = { ...job, isBesideAnother: false };
  await tally.add('', () =>
    onOwnDisk(scene, alone, async (run, remount) => {
      remount('ro');
      const end = await runJob(scene, alone, run);
      remount('rw');
      if (job.name === 'check') assert.equal(end.outcome, 'done', String(end.last['message']));
      else assert.notEqual(end.outcome, 'done');
      return end;
    }),
  );
  if (!READING.has(job.name)) return;
  await tally.add('with the target elsewhere', async () => {
    const disk = mkdtempSync(join(scene.folder, 'disk-'));
    const fault = mount(['-t', 'tmpfs', '-o', AMPLE, 'tmpfs', disk]);
    if (fault !== undefined) return notTested(fault);
    try {
      const { store } = scene.run('used', disk);
      assert.equal(mount(['-o', 'remount,ro', disk]), undefined);
      const run = { folder: mkdtempSync(join(scene.folder, 'run-')), store };
      const end = await runJob(scene, job, run);
      assert.equal(end.outcome, 'done', String(end.last['message']));
      return end.outcome;
    } finally {
      spawnSync('umount', ['--lazy', disk]);
    }
  });
}

/** In the middle of a backup, when a file appears in one of its folders, another folder takes the store's place. */
async function vanish(scene: StoreScene, job: StoreJob, tally: Tally, options: FaultOptions): Promise<void> {
  for (const at of options.long ? MOMENTS : pick(MOMENTS, 1, new Random(options.seed))) {
    await tally.add(`at ${at}`, async () => {
      const alone = { ...job, isBesideAnother: false };
      const run = prepareJob(scene, alone);
      const isLost = loseAt(run, job.kind === 'empty' ? '' : at);
      const end = await runJob(scene, alone, run);
      const wasLost = isLost();
      if (wasLost) {
        assertClear(end);
        assert.ok(!existsSync(join(run.store, 'snapshots')), 'a snapshot is where nobody finds it');
        rmSync(run.store, { recursive: true, force: true });
        renameSync(`${run.store}-gone`, run.store);
      }
      const outcome = await judgeJob(scene, alone, run, end, false);
      scene.discard(run);
      return wasLost ? outcome : `not in time: ${outcome}`;
    });
  }
}

/**
 * Moves the store away when a file appears in its folder `at`; the returned function ends the watch and says
 * whether that happened.
 */
function loseAt({ store }: StoreRun, at: string): () => boolean {
  const gone = `${store}-gone`;
  const watcher = watch(join(store, at), () => {
    if (existsSync(gone)) return;
    renameSync(store, gone);
  });
  return () => {
    watcher.close();
    return existsSync(gone);
  };
}

async function onOwnDisk(
  scene: StoreScene,
  job: StoreJob,
  attempt: (run: StoreRun, remount: (options: string) => void) => Promise<CommandEnd>,
): Promise<string> {
  const disk = mkdtempSync(join(scene.folder, 'disk-'));
  const fault = mount(['-t', 'tmpfs', '-o', AMPLE, 'tmpfs', disk]);
  if (fault !== undefined) return notTested(fault);
  try {
    const run = prepareJob(scene, job, disk);
    const end = await attempt(run, (options) =>
      assert.equal(mount(['-o', `remount,${options}`, disk]), undefined),
    );
    return await judgeJob(scene, job, run, end, false);
  } finally {
    spawnSync('umount', ['--lazy', disk]);
  }
}

/** The reason of the failure; undefined after a success. */
function mount(args: readonly string[]): string | undefined {
  const { status, stderr, error } = spawnSync('mount', args, { encoding: 'utf8' });
  return status === 0 ? undefined : (error?.message ?? stderr.trim());
}

function notTested(why: string): string {
  process.emitWarning(`NOT TESTED: only who may mount can have a full disk (${why})`);
  return 'NOT TESTED';
}
