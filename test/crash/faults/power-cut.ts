import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { Random } from '../../../fixtures/random.ts';
import type { Pair } from '../../support/relay-near.ts';
import { Disk, diskEvents, SURVIVORS } from './disk.ts';
import type { DiskEvent } from './disk.ts';
import type { FaultGroup, FaultOptions } from './group.ts';
import { includesFault, pick, Tally } from './group.ts';
import { environmentOf, markAsOwn, Scene, SCENE_KINDS } from './scene.ts';
import type { SceneKind } from './scene.ts';
import type { TracedRole } from './traced-agent.ts';
import { runTraced, straceFault } from './traced-agent.ts';

const TRACED = 'pwrite64,write,fsync,fdatasync,ftruncate,rename,link,unlink,openat'.split(',');

/** Random parts of the changes that were not durable, tried at each moment. */
const RANDOM_PARTS = 4;

/** In the short run. */
const SHORT_SCENES = 2;
const SHORT_MOMENTS = 3;

/** What writes the replica: an agent, or the process that copies without agents. */
const WRITERS: readonly (readonly [SceneKind, TracedRole])[] = [
  ...SCENE_KINDS.map((kind) => [kind, 'push'] as const),
  ['new', 'local'],
];

/**
 * Cuts the power after each system call that changes a file, of the agent or command that writes the replica. A
 * recording of one sync tells what the disk may then hold: see {@link Disk}.
 */
export const powerCut: FaultGroup = async function* (options) {
  const folder = mkdtempSync(join(tmpdir(), 'sqlsync-power-'));
  try {
    const fault = straceFault(folder);
    if (fault !== undefined) {
      process.emitWarning(fault);
      return;
    }
    const random = new Random(options.seed);
    for (const [kind, role] of options.long ? WRITERS : pick(WRITERS, SHORT_SCENES, random)) {
      const name = `power cut: ${kind}${role === 'local' ? ', local copy' : ''}`;
      if (!includesFault(options, name)) continue;
      const tally = new Tally(name);
      await cutAtEveryMoment(await Scene.make(join(folder, `${kind}-${role}`), kind), role, tally, options);
      yield tally;
    }
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
};

async function cutAtEveryMoment(
  scene: Scene,
  role: TracedRole,
  tally: Tally,
  options: FaultOptions,
): Promise<void> {
  const random = new Random(options.seed);
  try {
    const { disk, events } = await record(scene, role);
    const share = options.long ? 1 : SHORT_MOMENTS / events.length;
    let isConfirmed = false;
    for (const [i, event] of events.entries()) {
      disk.apply(event);
      isConfirmed ||= event.type === 'confirmed';
      if (!random.chance(share) && event.type !== 'confirmed') continue;
      for (const survivors of SURVIVORS) {
        const times = survivors === 'a random part' ? RANDOM_PARTS : 1;
        for (let time = 1; time <= times; time++) {
          const where = `after ${describe(event)} (${i + 1} of ${events.length}), ${survivors} survives, ${time}`;
          await tally.add(where, async () => {
            const pair = emptyPair(scene);
            disk.cut(dirname(pair.replica), survivors, random);
            // The copy has another inode than the replica that its mark was written for.
            if (existsSync(pair.replica)) markAsOwn(pair.replica);
            const state = scene.state(pair);
            if (isConfirmed) assert.equal(state, 'new', 'a confirmed commit was lost');
            await scene.converge(pair);
            scene.discard(pair);
            return isConfirmed ? `${state}, confirmed` : state;
          });
        }
      }
    }
    assert.ok(isConfirmed, 'the sync was not confirmed');
    await scene.checkOrigin();
  } finally {
    await scene.end();
  }
}

/** The disk before a sync, and the changes of the sync. */
async function record(scene: Scene, role: TracedRole): Promise<{ disk: Disk; events: DiskEvent[] }> {
  const pair = scene.pair();
  const disk = new Disk(dirname(pair.replica));
  const options = ['-xx', '-s', '1000000'];
  const environment = environmentOf(scene.kind);
  const ended = await runTraced(pair, { role, trace: TRACED, options, environment });
  await scene.judge(pair, ended);
  const isSummary = (written: Buffer): boolean => written.toString().includes('"type":"summary"');
  const events = diskEvents(dirname(pair.replica), ended.log, role === 'local' ? isSummary : undefined);
  scene.discard(pair);
  return { disk, events };
}

function emptyPair(scene: Scene): Pair {
  const replica = join(mkdtempSync(join(scene.folder, 'cut-')), 'replica.db');
  return { origin: scene.origin, replica, replace: scene.kind.startsWith('replace') };
}

function describe(event: DiskEvent): string {
  return `${event.type}${'name' in event ? ` of ${event.name}` : ''}`;
}
