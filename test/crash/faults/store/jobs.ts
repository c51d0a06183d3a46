import assert from 'node:assert/strict';
import { existsSync, rmSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { smallDatabase } from '../../../pages/databases.ts';
import { maskedPages } from '../../../support/compare.ts';
import { recoveredPages } from '../scene.ts';
import { assertClear, runCommand, snapshotIn } from './command.ts';
import type { CommandEnd, CommandOptions } from './command.ts';
import type { StoreKind, StoreRun, StoreScene } from './scene.ts';

/** A command on a store of one kind. */
export interface StoreJob {
  readonly name: string;
  readonly kind: StoreKind;
  readonly args: (scene: StoreScene, run: StoreRun) => readonly string[];
  /** The snapshots that it takes away, oldest first from 0. */
  readonly forgets?: readonly number[];
  /** Another backup, without a fault, runs at the same time. */
  readonly isBesideAnother?: boolean;
  /** Whether the target of a restore exists. */
  readonly target?: 'absent' | 'other';
}

const backup = (scene: StoreScene, { store }: StoreRun): string[] => ['backup', scene.origin, store];
const prune = (_: StoreScene, { store }: StoreRun): string[] => ['prune', store];
const restore = (scene: StoreScene, run: StoreRun): string[] => [
  'restore',
  `${run.store}#${scene.keptIn('used')[2]}`,
  targetOf(run),
  '--overwrite',
];

export const STORE_JOBS: readonly StoreJob[] = [
  { name: 'init', kind: 'absent', args: (_, { store }) => ['init', store] },
  { name: 'first backup', kind: 'empty', args: backup },
  { name: 'next backup', kind: 'used', args: backup },
  { name: 'backup --verify', kind: 'used', args: (...run) => [...backup(...run), '--verify'] },
  { name: 'backup beside another', kind: 'used', args: backup, isBesideAnother: true },
  {
    name: 'backup --keep-last 2 --prune',
    kind: 'garbage',
    args: (...run) => [...backup(...run), '--keep-last', '2', '--prune'],
    forgets: [0],
  },
  {
    name: 'forget',
    kind: 'used',
    args: (_, { store }) => ['forget', store, '--keep-last', '1'],
    forgets: [1, 2],
  },
  { name: 'prune that marks', kind: 'garbage', args: prune },
  { name: 'prune that deletes', kind: 'marked', args: prune },
  { name: 'restore of a new file', kind: 'used', args: restore, target: 'absent' },
  { name: 'restore into a database', kind: 'used', args: restore, target: 'other' },
  { name: 'check', kind: 'used', args: (_, { store }) => ['check', store, '--read-data'] },
];

/** A job that is ready to run into a fault. */
export function prepareJob(scene: StoreScene, job: StoreJob, folder?: string): StoreRun {
  const run = scene.run(job.kind, folder);
  if (job.target === 'other') smallDatabase(targetOf(run), { rows: 40, seed: 7 });
  return run;
}

export interface JobOptions extends Omit<CommandOptions, 'log' | 'compileCache'> {
  /** What the command gets in the place of the store's folder. */
  readonly address?: string;
}

/** Runs the command, with the fault in `options`. */
export async function runJob(
  scene: StoreScene,
  job: StoreJob,
  run: StoreRun,
  options: JobOptions = {},
): Promise<CommandEnd> {
  const named = (name: string): CommandOptions => ({
    compileCache: join(scene.folder, 'compile-cache'),
    log: join(scene.folder, `${run.folder.split('/').at(-1)}.${name}.strace`),
  });
  const other = job.isBesideAnother === true ? runCommand(backup(scene, run), named('other')) : undefined;
  const { address = run.store, ...how } = options;
  const args = job.args(scene, run).map((word) => word.replace(run.store, address));
  const end = await runCommand(args, { ...how, ...named('met') });
  const besides = await other;
  for (const each of [end, ...(besides === undefined ? [] : [besides])]) {
    const id = snapshotIn(each);
    if (id !== undefined) scene.images.set(id, scene.image);
  }
  if (besides !== undefined)
    assert.equal(besides.outcome, 'done', `the other backup: ${String(besides.last['message'])}`);
  return end;
}

/**
 * Checks the promise after a command with a fault: its report is true, the kept snapshots restore, the origin
 * is untouched, and the next commands succeed. Resolves to the outcome in a few words.
 */
export async function judgeJob(
  scene: StoreScene,
  job: StoreJob,
  run: StoreRun,
  end: CommandEnd,
  mayBeKilled: boolean,
): Promise<string> {
  if (!mayBeKilled) assertClear(end);
  await scene.checkOrigin();
  const before = scene.keptIn(job.kind);
  const added = snapshotIn(end);
  const isForgotten = (_: string, i: number): boolean => job.forgets?.includes(i) === true;
  const kept = before.filter((id, i) => !isForgotten(id, i)).concat(added ?? []);
  const isMade = job.kind !== 'absent' || end.outcome === 'done';
  const there = await scene.checkStore(run, { kept, isMade });
  const isDone = end.outcome === 'done';
  if (isDone && job.name.includes('backup'))
    assert.ok(added !== undefined, 'a backup that names no snapshot');
  if (isDone) {
    const left = before.filter(isForgotten).filter((id) => there.includes(id));
    assert.deepEqual(left, [], 'reported as taken away, and still there');
  }
  const state = job.target === undefined ? '' : `, ${await judgeTarget(scene, job, run, isDone)}`;
  await scene.goOn(run, { kept, isMade });
  return `${end.outcome}${state}`;
}

/**
 * Checks that the target of a restore is the old or the new database, and that another restore makes it the
 * new one.
 */
async function judgeTarget(
  scene: StoreScene,
  job: StoreJob,
  run: StoreRun,
  isDone: boolean,
): Promise<string> {
  const target = targetOf(run);
  const wanted = maskedPages(scene.images.get(scene.keptIn('used')[2] ?? '') as Buffer);
  const isWanted = (): boolean => {
    const pages = recoveredPages(target, scene.folder);
    return pages.length === wanted.length && pages.every((page, i) => page.equals(wanted[i] as Buffer));
  };
  let state = existsSync(target) ? (isWanted() ? 'new' : 'old') : 'absent';
  if (isDone) assert.equal(state, 'new', 'the restore reported success');
  if (job.target === 'absent') assert.notEqual(state, 'old', 'a target that is no snapshot');
  else if (state !== 'new') state = assertOther(scene, target);
  const again = await runJob(scene, { ...job, isBesideAnother: false }, run);
  assert.equal(again.outcome, 'done', `restoring once more: ${String(again.last['message'])}`);
  assert.ok(isWanted(), 'restored once more, and not the snapshot');
  return state;
}

function assertOther(scene: StoreScene, target: string): 'old' {
  const other = join(dirname(target), 'as-it-was.db');
  smallDatabase(other, { rows: 40, seed: 7 });
  const [was, is] = [other, target].map((path) => recoveredPages(path, scene.folder));
  rmSync(other);
  assert.deepEqual(is?.length, was?.length, 'the target is neither the old nor the new database');
  assert.ok(
    is?.every((page, i) => page.equals(was?.[i] as Buffer)),
    'the target is neither old nor new',
  );
  return 'old';
}

export function targetOf({ folder }: StoreRun): string {
  return join(folder, 'target.db');
}
