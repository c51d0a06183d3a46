import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, renameSync, rmSync, statfsSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { Random } from '../../../fixtures/random.ts';
import type { MessageOf } from '../../../protocol/messages.ts';
import { besideReplica } from '../../../src/beside/mark.ts';
import { spawnProcess } from '../../../src/transport/process.ts';
import { CLI } from '../../support/relay-kill.ts';
import { failureOf, runNear, runRelayed } from '../../support/relay-near.ts';
import type { Pair } from '../../support/relay-near.ts';
import type { FaultGroup, FaultOptions } from './group.ts';
import { includesFault, Tally } from './group.ts';
import { environmentOf, Scene, SCENE_KINDS } from './scene.ts';
import type { Ended } from './scene.ts';

/** Applies a kind of fault in a scene, as often as the run asks for. */
type Trial = (scene: Scene, tally: Tally, options: FaultOptions) => Promise<void>;

const TMPFS_BLOCK_BYTES = 4096;
const AMPLE = 'size=64m';

/** Node.js needs some twenty descriptors before it runs anything. */
const DESCRIPTORS = Array.from({ length: 30 }, (_, i) => 14 + i);

const FILE_SIZES = Array.from({ length: 20 }, (_, i) => 512 + i * 2048);

const TRIALS: Readonly<Record<string, Trial>> = {
  'a disk that fills up': fillDisk,
  'a file system that is read-only': readOnly,
  'no more descriptors': (scene, tally, options) =>
    limit(scene, tally, pickFor(options, DESCRIPTORS), 'nofile'),
  'a limit on the size of files': (scene, tally, options) =>
    limit(scene, tally, pickFor(options, FILE_SIZES), 'fsize'),
  'short reads and writes': shortTransfers,
  'a folder that is removed': (scene, tally) => loseFolder(scene, tally, 'removed'),
  'a folder that is moved away': (scene, tally) => loseFolder(scene, tally, 'moved'),
};

/** The surroundings of a replica agent fail: room, descriptors, rights, and the folder. */
export const surroundings: FaultGroup = async function* (options) {
  const folder = mkdtempSync(join(tmpdir(), 'sqlsync-surroundings-'));
  const random = new Random(options.seed);
  try {
    for (const [name, trial] of Object.entries(TRIALS)) {
      const kinds = options.long ? SCENE_KINDS : [random.pick(SCENE_KINDS)];
      for (const kind of kinds) {
        if (!includesFault(options, `${name}: ${kind}`)) continue;
        const scene = await Scene.make(join(folder, kind), kind);
        const tally = new Tally(`${name}: ${kind}`);
        try {
          await trial(scene, tally, options);
        } finally {
          await scene.end();
        }
        yield tally;
      }
    }
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
};

/** One block of free space, then two, … until it is enough; the short run tries a few. */
async function fillDisk(scene: Scene, tally: Tally, options: FaultOptions): Promise<void> {
  let isEnough = false;
  const blocks = pickFor(
    options,
    Array.from({ length: 60 }, (_, i) => i + 1),
  );
  for (const free of blocks) {
    if (isEnough) break;
    await tally.add(`${free} free blocks`, () =>
      onOwnDisk(scene, async (pair, remount) => {
        const { blocks: all, bfree } = statfsSync(dirname(pair.replica));
        remount(`size=${(all - bfree + free) * TMPFS_BLOCK_BYTES}`);
        const ended = await runFar(pair, [], environmentOf(scene.kind));
        assert.ok(!existsSync(besideReplica(pair.replica, '-spool')), 'a spool goes on filling the disk');
        remount(AMPLE);
        isEnough = ended.failure === undefined && options.long;
        const { failure } = ended;
        if (failure !== undefined) assert.equal(failure.code, 'REPLICA_UNWRITABLE', failure.message);
        return ended;
      }),
    );
  }
}

async function readOnly(scene: Scene, tally: Tally): Promise<void> {
  await tally.add('', () =>
    onOwnDisk(scene, async (pair, remount) => {
      remount('ro');
      const ended = await runFar(pair, [], environmentOf(scene.kind));
      assert.equal(ended.failure?.code, 'REPLICA_UNWRITABLE', ended.failure?.message);
      assert.equal(scene.state(pair), scene.before);
      remount('rw');
      return ended;
    }),
  );
}

/** Runs `attempt` with the replica on a file system of its own, and judges the files there after it. */
async function onOwnDisk(
  scene: Scene,
  attempt: (pair: Pair, remount: (options: string) => void) => Promise<Ended>,
): Promise<string> {
  const run = mkdtempSync(join(scene.folder, 'disk-'));
  const fault = mount(['-t', 'tmpfs', '-o', AMPLE, 'tmpfs', run]);
  if (fault !== undefined) return notTested(`only who may mount can have a full disk (${fault})`);
  try {
    const pair = scene.pair(run);
    const remount = (options: string): void =>
      assert.equal(mount(['-o', `remount,${options}`, run]), undefined);
    return await judged(scene, pair, await attempt(pair, remount));
  } finally {
    spawnSync('umount', ['--lazy', run]);
  }
}

async function limit(
  scene: Scene,
  tally: Tally,
  numbers: readonly number[],
  kind: 'nofile' | 'fsize',
): Promise<void> {
  for (const number of numbers) {
    await tally.add(`${kind} ${number}`, async () => {
      if (spawnSync('prlimit', ['--version']).error !== undefined) return notTested('prlimit is missing');
      const pair = scene.pair();
      return await judged(
        scene,
        pair,
        await runFar(pair, ['prlimit', `--${kind}=${number}`], environmentOf(scene.kind)),
      );
    });
  }
}

/** The system may always transfer less than asked for. */
async function shortTransfers(scene: Scene, tally: Tally): Promise<void> {
  const code = `
    import fs from 'node:fs';
    import { syncBuiltinESMExports } from 'node:module';
    const { readSync, writeSync, write } = fs;
    const less = (length) => Math.max(1, Math.floor(length / 3));
    fs.readSync = (file, into, offset, length, at) => typeof length === 'number'
      ? readSync(file, into, offset, less(length), at) : readSync(file, into, offset, length, at);
    fs.writeSync = (file, from, offset, length, at) => typeof length === 'number'
      ? writeSync(file, from, offset, less(length), at) : writeSync(file, from, offset, length, at);
    fs.write = (file, from, offset, length, at, done) => typeof length === 'number'
      ? write(file, from, offset, less(length), at, done) : write(file, from, offset, length, at, done);
    syncBuiltinESMExports();`;
  const preload = `data:text/javascript;base64,${Buffer.from(code).toString('base64')}`;
  for (const role of ['push', 'pull'] as const) {
    await tally.add(role, async () => {
      const pair = scene.pair();
      const ended = await runFar(pair, [], { NODE_OPTIONS: `--import=${preload}` }, role);
      assert.equal(ended.failure?.message, undefined);
      return await judged(scene, pair, ended);
    });
  }
}

/** At each message of a sync. */
async function loseFolder(scene: Scene, tally: Tally, how: 'removed' | 'moved'): Promise<void> {
  // Without a replica the next sync makes one without pages, and not the empty database of an emptied
  // replica.
  if (scene.kind === 'emptied') return;
  for (const at of ['snapshot', 'getPages', 'pages', 'getRoot', 'root', 'release'] as const) {
    await tally.add(`at ${at}`, async () => {
      const pair = scene.pair();
      const folder = dirname(pair.replica);
      let isLost = false;
      const ended = await runRelayed('push', pair, ({ message }) => {
        if (message.type === at && !isLost) {
          isLost = true;
          if (how === 'removed') rmSync(folder, { recursive: true });
          else renameSync(folder, `${folder}-moved`);
        }
        return [message];
      });
      const failure = ended.near ?? ended.far;
      if (!isLost) return await judged(scene, pair, { failure });
      assert.ok(failure !== undefined, 'it was called a success');
      assert.notEqual(failure.code, 'INTERNAL', failure.message);
      assert.ok(!existsSync(pair.replica), 'a replica came to be where there was no folder');
      if (how === 'moved') {
        const moved = { ...pair, replica: join(`${folder}-moved`, 'replica.db') };
        assert.equal(scene.state(moved), scene.before);
      }
      await scene.checkOrigin();
      rmSync(folder, { recursive: true, force: true });
      mkdirSync(folder);
      await scene.converge(pair);
      scene.discard(pair);
      return failure.code;
    });
  }
}

async function judged(scene: Scene, pair: Pair, ended: Ended): Promise<string> {
  // Only the mark may run into a limit, which costs one --overwrite.
  const state = await scene.judge(pair, ended, { mayBeUnmarked: true });
  return `${ended.failure?.code ?? 'done'}, ${state}`;
}

async function runFar(
  pair: Pair,
  prefix: readonly string[] = [],
  environment: NodeJS.ProcessEnv = {},
  role: 'push' | 'pull' = 'push',
): Promise<Ended> {
  const [command = process.execPath, ...args] = prefix.concat(process.execPath, CLI, 'agent');
  const transport = spawnProcess({ command, args, env: { ...process.env, ...environment } });
  try {
    let done: MessageOf<'done'> | undefined;
    const failure = await failureOf(runNear(transport, role, pair).then((last) => (done = last)));
    await transport.exited;
    return { failure, done };
  } finally {
    transport.terminate();
  }
}

function pickFor(options: FaultOptions, numbers: readonly number[]): readonly number[] {
  if (options.long) return numbers;
  const random = new Random(options.seed);
  return [random.pick(numbers), random.pick(numbers)];
}

/** The reason of the failure; undefined after a success. */
function mount(args: readonly string[]): string | undefined {
  const { status, stderr, error } = spawnSync('mount', args, { encoding: 'utf8' });
  return status === 0 ? undefined : (error?.message ?? stderr.trim());
}

function notTested(why: string): string {
  process.emitWarning(`NOT TESTED: ${why}`);
  return 'NOT TESTED';
}
