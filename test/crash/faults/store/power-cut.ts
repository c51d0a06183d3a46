import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync } from 'node:fs';
import { join } from 'node:path';
import { Random } from '../../../../fixtures/random.ts';
import { Disk, diskEvents, SURVIVORS } from '../disk.ts';
import type { DiskEvent, Survivors } from '../disk.ts';
import type { FaultOptions, FaultRow } from '../group.ts';
import { includesFault, Tally } from '../group.ts';
import { assertClear, runCommand, snapshotIn } from './command.ts';
import { StoreScene } from './scene.ts';
import type { StoreRun } from './scene.ts';

const TRACED =
  'write,pwrite64,fsync,fdatasync,ftruncate,openat,mkdir,link,rename,unlink,linkat,unlinkat,rmdir'.split(',');
/** Calls that the model of a disk does not know, and that nothing uses so far. */
const UNKNOWN = /^\d+ +(linkat|unlinkat|rmdir)\(.*\\x73\\x74\\x6f\\x72\\x65/m;

/** Random parts of the changes that were not durable, tried at each moment. */
const RANDOM_PARTS = 3;

/** The lives of a store in the long run, and how many of them have kills. */
const LIFE = 'init,backup,backup,backup,forget,prune,prune,backup,prune,forget,backup,prune,prune'.split(',');
const KILLED_LIVES = 2;
const SHORT_LIFE = 'init,backup,backup,forget'.split(',');
const SHORT_MOMENTS = 4;

/** One command of a store's life, as a disk saw it. */
interface Chapter {
  readonly name: string;
  readonly events: readonly DiskEvent[];
  /** What the store has to hold before the confirmation of the command, and after it. */
  readonly before: readonly string[];
  readonly after: readonly string[];
  readonly isMadeBefore: boolean;
}

/**
 * Cuts the power after each system call that changes a file, of the commands of a store's life. Between two
 * commands, only their own fsyncs make anything durable. In some lives commands are killed, each at a random
 * call, and tried again.
 */
export async function* cutPower(folder: string, options: FaultOptions): AsyncGenerator<FaultRow> {
  for (let life = 0; life <= (options.long ? KILLED_LIVES : 0); life++) {
    const name = life === 0 ? 'power cut' : `power cut, with kills (${life})`;
    if (!includesFault(options, name)) continue;
    const random = new Random(options.seed + life);
    const scene = await StoreScene.make(join(folder, `power-${life}`), []);
    try {
      const run = scene.run('absent');
      const disk = new Disk(run.folder);
      const chapters = await live(
        scene,
        run,
        options.long ? LIFE : SHORT_LIFE,
        life > 0 ? random : undefined,
      );
      const tally = new Tally(name);
      const moments = chapters.reduce((sum, { events }) => sum + events.length, 0);
      const share = options.long ? 1 : SHORT_MOMENTS / moments;
      for (const [i, chapter] of chapters.entries()) {
        const cutter = { scene, disk, tally, random, share, where: `command ${i + 1}, ${chapter.name}` };
        await cutChapter(cutter, chapter);
      }
      yield tally;
    } finally {
      await scene.end();
    }
  }
}

interface Cutter {
  readonly scene: StoreScene;
  readonly disk: Disk;
  readonly tally: Tally;
  readonly random: Random;
  readonly share: number;
  readonly where: string;
}

async function cutChapter(
  { scene, disk, tally, random, share, where }: Cutter,
  chapter: Chapter,
): Promise<void> {
  const { events, before, after, isMadeBefore } = chapter;
  let isConfirmed = false;
  for (const [i, event] of events.entries()) {
    disk.apply(event);
    isConfirmed ||= event.type === 'confirmed';
    if (!random.chance(share)) continue;
    const kept = isConfirmed ? after : before.filter((id) => after.includes(id));
    const isMade = isMadeBefore || isConfirmed;
    for (const survivors of SURVIVORS) {
      for (let time = 1; time <= (survivors === 'a random part' ? RANDOM_PARTS : 1); time++) {
        const moment = `${where}, after ${event.type}${'name' in event ? ` of ${event.name}` : ''}`;
        await tally.add(`${moment} (${i + 1} of ${events.length}), ${survivors} survives`, async () => {
          const cut = cutInto(scene, disk, survivors, random);
          const there = await scene.checkStore(cut, { kept, isMade });
          await scene.goOn(cut, { kept: there, isMade });
          scene.discard(cut);
          return `${chapter.name}${isConfirmed ? ', confirmed' : ''}`;
        });
      }
    }
  }
}

function cutInto(scene: StoreScene, disk: Disk, survivors: Survivors, random: Random): StoreRun {
  const folder = mkdtempSync(join(scene.folder, 'cut-'));
  disk.cut(folder, survivors, random);
  return { folder, store: join(folder, 'store') };
}

/**
 * Runs the commands one after the other, each on the store that the last one left; with `kills`, some are
 * killed first.
 */
async function live(
  scene: StoreScene,
  run: StoreRun,
  names: readonly string[],
  kills: Random | undefined,
): Promise<Chapter[]> {
  const chapters: Chapter[] = [];
  let kept: readonly string[] = [];
  let isMade = false;
  for (const [i, name] of names.entries()) {
    if (name === 'backup') await scene.changeOrigin(i + 10);
    for (let kill = kills?.chance(0.6) === true; ; kill = false) {
      const before = kept;
      const isMadeBefore = isMade;
      const inject = kill ? [killAt(kills as Random)] : [];
      const { events, isDone, added } = await record(scene, run, argsOf(scene, run, name), inject);
      if (!kill) assert.ok(isDone, `${name} failed`);
      if (name === 'forget') kept = kept.slice(-1);
      if (added !== undefined) kept = [...kept, added];
      isMade ||= name === 'init' && isDone;
      chapters.push({ name: kill ? `${name}, killed` : name, events, before, after: kept, isMadeBefore });
      if (isDone) break;
    }
  }
  return chapters;
}

function argsOf(scene: StoreScene, { store }: StoreRun, name: string): string[] {
  if (name === 'init') return ['init', store, '--grace', '0s'];
  if (name === 'backup') return ['backup', scene.origin, store];
  return name === 'forget' ? ['forget', store, '--keep-last', '1'] : ['prune', store];
}

function killAt(random: Random): string {
  const call = random.pick(['fsync', 'link', 'unlink', 'mkdir', 'rename']);
  return `${call}:signal=SIGKILL:when=${random.integer(1, 4)}`;
}

async function record(
  scene: StoreScene,
  run: StoreRun,
  args: readonly string[],
  inject: readonly string[],
): Promise<{ events: DiskEvent[]; isDone: boolean; added: string | undefined }> {
  const end = await runCommand(args, {
    trace: TRACED,
    options: ['-xx', '-s', '1000000'],
    inject,
    compileCache: join(scene.folder, 'compile-cache'),
    log: join(scene.folder, 'power.strace'),
  });
  if (inject.length === 0) assertClear(end);
  assert.doesNotMatch(end.log, UNKNOWN);
  const added = snapshotIn(end);
  if (added !== undefined) scene.images.set(added, scene.image);
  const events = diskEvents(run.folder, end.log, (written) => written.includes('"type":"summary"'));
  mkdirSync(run.folder, { recursive: true });
  return { events, isDone: end.outcome === 'done', added };
}
