import assert from 'node:assert/strict';
import { existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Random } from '../../../../fixtures/random.ts';
import type { FaultOptions, FaultRow } from '../group.ts';
import { includesFault, pick, Tally } from '../group.ts';
import { assertClear } from './command.ts';
import type { CommandEnd } from './command.ts';
import { runJob } from './jobs.ts';
import { StoreScene, storeIn } from './scene.ts';

type Damage = (bytes: Buffer, random: Random) => Buffer | undefined;

const DAMAGES: Readonly<Record<string, Damage>> = {
  'a flipped byte': (bytes, random) => {
    const flipped = Buffer.from(bytes);
    const at = random.integer(0, bytes.length - 1);
    flipped[at] = (flipped[at] as number) ^ (1 + random.integer(0, 254));
    return flipped;
  },
  'a file that was cut': (bytes, random) => bytes.subarray(0, random.integer(0, bytes.length - 1)),
  'a file that was removed': () => undefined,
};

/** How often each kind of file is damaged in each way. */
const DAMAGES_EACH = 3;

/**
 * The effect of a damaged file on commands: check names it or its content, a restore gives the exact database
 * or an error with a name, and a backup makes a snapshot that restores or says why not.
 */
export async function* damageFiles(folder: string, options: FaultOptions): AsyncGenerator<FaultRow> {
  const random = new Random(options.seed);
  const kinds = ['packs', 'indexes', 'snapshots', 'marks', 'forgotten', 'config', 'cache'];
  const damages = Object.entries(DAMAGES);
  for (const [name, damage] of options.long ? damages : [random.pick(damages)]) {
    for (const kind of options.long ? kinds : pick(kinds, 1, random)) {
      const tally = new Tally(`${name}: ${kind}`);
      if (!includesFault(options, tally.fault)) continue;
      const scene = await StoreScene.make(join(folder, 'damage'), ['marked']);
      try {
        for (let i = options.long ? DAMAGES_EACH : 1; i > 0; i--)
          await tally.add(`number ${i}`, () => damageOne(scene, kind, damage, random));
      } finally {
        await scene.end();
      }
      yield tally;
    }
  }
}

async function damageOne(scene: StoreScene, kind: string, damage: Damage, random: Random): Promise<string> {
  const run = scene.run('marked');
  const before = await (await storeIn(run.store)).store.snapshots();
  const path = kind === 'config' ? join(run.store, kind) : anyFile(join(run.store, kind), random);
  const damaged = damage(readFileSync(path), random);
  rmSync(path);
  if (damaged !== undefined) writeFileSync(path, damaged);
  const command = async (args: readonly string[]): Promise<CommandEnd> => {
    const end = await runJob(scene, { name: '', kind: 'marked', args: () => args }, run);
    assertClear(end);
    return end;
  };
  const check = await command(['check', run.store, '--read-data']);
  const isSeen = check.outcome !== 'done';
  // Nothing refers to a snapshot or a mark, and an index may list only packs of forgotten snapshots.
  const mayBeMissing = kind === 'snapshots' || kind === 'marks' || kind === 'indexes';
  const mayBeUnseen = kind === 'cache' || kind === 'forgotten' || (mayBeMissing && damaged === undefined);
  if (!mayBeUnseen) assert.ok(isSeen, 'check found nothing');
  const restored: string[] = [];
  for (const { id } of before) {
    const target = join(run.folder, 'target.db');
    const { outcome } = await command(['restore', `${run.store}#${id}`, target]);
    restored.push(outcome);
    assert.equal(existsSync(target), outcome === 'done');
    if (!isSeen && kind !== 'snapshots')
      assert.equal(outcome, 'done', 'check found nothing, and a snapshot does not restore');
    if (outcome === 'done')
      assert.ok(readFileSync(target).equals(scene.images.get(id) as Buffer), 'a wrong database');
    rmSync(target, { force: true });
  }
  const next = await command(['backup', scene.origin, run.store, '--verify']);
  await scene.checkOrigin();
  scene.discard(run);
  return `check ${check.outcome}, restore ${[...new Set(restored)].join(' and ')}, backup ${next.outcome}`;
}

function anyFile(folder: string, random: Random): string {
  return join(folder, random.pick(readdirSync(folder).filter((name) => !name.startsWith('.'))));
}
