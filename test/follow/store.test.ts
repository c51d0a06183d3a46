import assert from 'node:assert/strict';
import { existsSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import type { TestContext } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { jsonLines, sqlsync, summaryOf } from '../cli/command.ts';
import type { Summary } from '../cli/command.ts';
import { assertDocumented } from '../cli/store-here.ts';
import { Following } from './following.ts';
import { scene } from './scene.ts';
import type { Scene } from './scene.ts';

/** One state of the origin, and a moment when it was the newest. */
interface Known {
  readonly hash: unknown;
  readonly at: string;
}

/** A database that is followed into a store, and what was in it. */
class Followed {
  readonly all: Scene;
  readonly store: string;
  readonly states: Known[] = [];
  following: Following;
  readonly #t: TestContext;
  readonly #env: Readonly<Record<string, string>>;
  readonly #args: readonly string[];
  #restored = 0;

  static async start(
    t: TestContext,
    args: readonly string[] = [],
    password?: string,
    more: Readonly<Record<string, string>> = {},
  ): Promise<Followed> {
    const all = await scene(t);
    const store = join(all.folder, 'store');
    const file = join(all.folder, 'password');
    if (password !== undefined) writeFileSync(file, password);
    const env = { ...more, ...(password === undefined ? {} : { SQLSYNC_PASSWORD_FILE: file }) };
    await summaryOf(['init', store, '--grace', '0', ...(password === undefined ? [] : ['--encrypt'])], {
      env,
    });
    return new Followed(t, all, store, args, env);
  }

  constructor(
    t: TestContext,
    all: Scene,
    store: string,
    args: readonly string[],
    env: Readonly<Record<string, string>>,
  ) {
    this.#t = t;
    this.#env = env;
    this.#args = args;
    this.all = all;
    this.store = store;
    this.following = this.begin();
  }

  /** Another process that follows into the same store. */
  begin(): Following {
    const { origin } = this.all;
    const env = { ...this.#env, SQLSYNC_LOOK_FOR_BASE_MS: '300' };
    return (this.following = new Following(this.#t, [...this.#args, origin, this.store], { env }));
  }

  get committed(): number {
    return this.following.events('step').filter(({ outcome }) => outcome === 'committed').length;
  }

  /** Makes one commit, and waits until it is in the store. */
  async change(sql: string): Promise<void> {
    const before = this.committed;
    await this.all.app.call('exec', sql);
    await this.following.untilEvents('step', 1);
    while (this.committed === before)
      await this.following.untilEvents('step', this.following.events('step').length + 1);
    await this.note();
  }

  async note(): Promise<void> {
    this.states.push({ hash: await this.all.app.call('imageHash'), at: new Date().toISOString() });
  }

  async restore(which: string): Promise<{ hash: unknown; summary: Summary }> {
    const target = join(this.all.folder, `restored-${this.#restored++}.db`);
    const summary = await summaryOf(['restore', `${this.store}#${which}`, target], { env: this.#env });
    assertDocumented('restore', summary);
    const db = await this.all.other.open(target, { readonly: true });
    assert.deepEqual(await db.call('rows', 'PRAGMA integrity_check'), [['ok']]);
    const hash = await db.call('imageHash');
    await db.call('close');
    return { hash, summary };
  }

  /** Waits until the newest state in the store is what the origin is now. */
  async untilLatest(): Promise<void> {
    const hash = await this.all.app.call('imageHash');
    for (let attempt = 1; (await this.restore('latest')).hash !== hash; attempt++)
      assert.ok(attempt < 60, this.following.command.said);
  }

  async run(...args: string[]): Promise<Summary> {
    return summaryOf(args, { env: this.#env });
  }

  get files(): string[] {
    const folder = join(this.store, 'steps');
    return existsSync(folder) ? readdirSync(folder).sort() : [];
  }

  /** Every state that is known comes back, by the moment at which it was the newest. */
  async checkAll(): Promise<void> {
    for (const { hash, at } of this.states) assert.equal((await this.restore(at)).hash, hash, at);
    assert.equal((await this.restore('latest')).hash, this.states.at(-1)?.hash);
    assert.deepEqual((await this.run('check', this.store, '--read-data'))['problems'], []);
  }
}

const CHANGES = [
  'UPDATE item SET amount = amount + 1 WHERE id = 7',
  'CREATE TABLE added (id INTEGER PRIMARY KEY, text)',
  'INSERT INTO added SELECT id, hex(randomblob(300)) FROM item LIMIT 200',
  'DELETE FROM item WHERE id % 3 = 0',
  'VACUUM',
  'INSERT INTO added SELECT NULL, hex(randomblob(900)) FROM item LIMIT 300',
  'DROP TABLE added',
  'UPDATE item SET amount = amount - 1',
];

for (const password of [undefined, 'open sesame'])
  test(`each state of a followed database comes back from ${password === undefined ? 'a' : 'an encrypted'} store by its time`, async (t) => {
    const followed = await Followed.start(t, [], password);
    await followed.following.untilEvents('step', 1);
    await followed.note();
    for (const sql of CHANGES) await followed.change(sql);
    const { status, stderr, summary } = await followed.following.end();
    assert.deepEqual([status, stderr], [0, '']);
    assertDocumented('follow', summary);
    await followed.checkAll();
    const { summary: restored } = await followed.restore('latest');
    assert.equal(restored['step'], CHANGES.length);
    // A file for each step, and one of all of them, which the single ones can stand for.
    assert.equal(followed.files.length, CHANGES.length + 1);
    const together = join(followed.store, 'steps', followed.files.find((name) => name[25] === '1') as string);
    const bytes = readFileSync(together);
    bytes[bytes.length - 40] = (bytes[bytes.length - 40] as number) ^ 1;
    rmSync(together);
    writeFileSync(together, bytes);
    assert.equal((await followed.restore('latest')).hash, followed.states.at(-1)?.hash);
  });

test('a follower that is killed leaves its steps, and the next one begins another stream', async (t) => {
  const followed = await Followed.start(t);
  await followed.following.untilEvents('step', 1);
  await followed.note();
  for (const sql of CHANGES.slice(0, 3)) await followed.change(sql);
  followed.following.command.child.kill('SIGKILL');
  await followed.following.command.done;
  await followed.all.app.call('exec', 'UPDATE item SET amount = 0 WHERE id = 9');
  await followed.begin().untilEvents('step', 1);
  await followed.note();
  await followed.change('UPDATE item SET amount = 1 WHERE id = 9');
  await followed.following.end();
  await followed.checkAll();
  assert.equal(((await followed.run('snapshots', followed.store))['snapshots'] as unknown[]).length, 2);
});

test('two followers of one database by mistake make two streams, and neither spoils the other', async (t) => {
  const followed = await Followed.start(t);
  const first = followed.following;
  await first.untilEvents('step', 1);
  const second = followed.begin();
  await second.untilEvents('step', 1);
  await followed.note();
  for (const sql of CHANGES) await followed.change(sql);
  await followed.untilLatest();
  await delay(1000); // the other one may be a step behind
  for (const each of [first, second]) assert.equal((await each.end()).status, 0);
  // A state that one has read just before a commit may come after the other's, by their times; it is a whole state.
  const known = new Set(followed.states.map(({ hash }) => hash));
  for (const { at } of followed.states) assert.ok(known.has((await followed.restore(at)).hash), at);
  assert.equal((await followed.restore('latest')).hash, followed.states.at(-1)?.hash);
  assert.deepEqual((await followed.run('check', followed.store, '--read-data'))['problems'], []);
});

test('a snapshot is made when the last one is old, and the states before and after it come back', async (t) => {
  const followed = await Followed.start(t, ['--snapshot-every', '2s', '--keep-steps', '1ms']);
  await followed.following.untilEvents('step', 1);
  await followed.note();
  const snapshots = async (): Promise<number> =>
    ((await followed.run('snapshots', followed.store))['snapshots'] as unknown[]).length;
  for (let n = 0; (await snapshots()) < 3; n++)
    await followed.change(`UPDATE item SET amount = ${n} WHERE id % 20 = 7`);
  await followed.untilLatest();
  assert.equal((await followed.following.end()).status, 0);
  // Single steps that were put together are gone at once.
  const streams = Map.groupBy(followed.files, (name) => name.slice(0, 24));
  for (const files of streams.values())
    assert.ok(files.filter((name) => name[25] === '0').length <= 1, files.join());
});

test('a missing step is a gap: no later state comes back, and restore and check say so', async (t) => {
  const followed = await Followed.start(t);
  await followed.following.untilEvents('step', 1);
  await followed.note();
  for (const sql of CHANGES.slice(0, 4)) await followed.change(sql);
  followed.following.command.child.kill('SIGKILL');
  await followed.following.command.done;
  rmSync(join(followed.store, 'steps', followed.files[2] as string));
  for (const { hash, at } of followed.states.slice(0, 3))
    assert.equal((await followed.restore(at)).hash, hash);
  const target = join(followed.all.folder, 'never.db');
  const lost = await sqlsync(['restore', `${followed.store}#latest`, target]);
  assert.match(lost.stderr, /STORE_FILE_MISSING/);
  assert.match(lost.stderr, /newest state before the gap/);
  const { stdout } = await sqlsync(['check', followed.store, '--json']);
  const { problems } = jsonLines(stdout).at(-1) as unknown as { problems: { message: string }[] };
  assert.match(problems[0]?.message ?? '', /is missing/);
});

test('a changed step is damage: restore refuses it, and check --read-data names it', async (t) => {
  const followed = await Followed.start(t);
  await followed.following.untilEvents('step', 1);
  await followed.change(CHANGES[0] as string);
  await followed.following.end();
  const [name = ''] = followed.files;
  const file = join(followed.store, 'steps', name);
  const bytes = readFileSync(file);
  bytes[bytes.length >> 1] = (bytes[bytes.length >> 1] as number) ^ 1;
  rmSync(file);
  writeFileSync(file, bytes);
  const lost = await sqlsync(['restore', `${followed.store}#latest`, join(followed.all.folder, 'never.db')]);
  assert.match(lost.stderr, /STORE_DAMAGED/);
  const check = await sqlsync(['check', followed.store, '--read-data']);
  assert.match(check.stdout + check.stderr, new RegExp(name.slice(0, 60)));
});

test('a policy spares the snapshot whose steps are newer than all snapshots', async (t) => {
  const followed = await Followed.start(t, ['--host', 'followed']);
  await followed.following.untilEvents('step', 1);
  await followed.change(CHANGES[0] as string);
  await followed.run('backup', followed.all.origin, followed.store, '--host', 'followed');
  await followed.change(CHANGES[1] as string);
  const forgotten = await followed.run('forget', followed.store, '--keep-last', '1', '--prune');
  assert.deepEqual(forgotten['forgotten'], []);
  assert.equal((await followed.restore('latest')).hash, followed.states.at(-1)?.hash);
  // What is newer than the last step makes its snapshot one among others.
  assert.equal((await followed.following.end()).status, 0);
  await followed.run('backup', followed.all.origin, followed.store, '--host', 'followed');
  const again = await followed.run('forget', followed.store, '--keep-last', '1', '--prune');
  assert.equal((again['forgotten'] as unknown[]).length, 2);
  assert.deepEqual((await followed.run('check', followed.store, '--read-data'))['problems'], []);
});

test('the steps after a forgotten snapshot go with the next prune, and the follower begins again from another', async (t) => {
  const followed = await Followed.start(t);
  await followed.following.untilEvents('step', 1);
  await followed.change(CHANGES[0] as string);
  await followed.following.end();
  const [snapshot] = (await followed.run('snapshots', followed.store))['snapshots'] as {
    id: string;
  }[];
  await followed.run('forget', followed.store, String(snapshot?.id));
  // A record that is missing by accident may come back.
  const early = await followed.run('prune', followed.store, '--grace', '1h');
  assert.equal(early['stepsDeleted'], 0);
  const pruned = await followed.run('prune', followed.store);
  assertDocumented('prune', pruned);
  assert.equal(pruned['stepsDeleted'], 1);
  assert.deepEqual(followed.files, []);
  followed.states.length = 0;
  await followed.begin().untilEvents('step', 1);
  await followed.note();
  await followed.change(CHANGES[1] as string);
  await followed.following.end();
  await followed.checkAll();
});

test('a follower whose snapshot is forgotten makes another one, though the origin is idle', async (t) => {
  const followed = await Followed.start(t);
  await followed.following.untilEvents('step', 1);
  await followed.change(CHANGES[0] as string);
  const steps = followed.following.events('step').length;
  const [snapshot] = (await followed.run('snapshots', followed.store))['snapshots'] as { id: string }[];
  await followed.run('forget', followed.store, String(snapshot?.id), '--prune');
  await followed.following.untilEvents('step', steps + 1);
  assert.equal((await followed.following.end()).status, 0);
  assert.equal((await followed.restore('latest')).hash, followed.states.at(-1)?.hash);
});

/** 18 MB in one commit. */
const LARGE =
  'INSERT INTO large WITH n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 300) SELECT randomblob(60000) FROM n';

test('a change that is too large for one file takes several, of which all or none count', async (t) => {
  const followed = await Followed.start(t);
  await followed.following.untilEvents('step', 1);
  await followed.note();
  await followed.change('CREATE TABLE large (x)');
  await followed.change(LARGE);
  await followed.change('UPDATE item SET amount = 3 WHERE id = 7');
  await followed.change('UPDATE large SET x = randomblob(60001)');
  assert.equal((await followed.following.end()).status, 0);
  const levels = followed.files.map((name) => name.split('-')[1]);
  assert.equal(levels.filter((level) => level === '2').length, 2);
  assert.equal(((await followed.run('snapshots', followed.store))['snapshots'] as unknown[]).length, 1);
  await followed.checkAll();
  // The follower was killed before the last part of the last change.
  const last = followed.files.findLast((name) => name.split('-')[1] === '0');
  rmSync(join(followed.store, 'steps', last ?? ''));
  followed.states.pop();
  assert.equal((await followed.restore('latest')).hash, followed.states.at(-1)?.hash);
  assert.deepEqual((await followed.run('check', followed.store))['problems'], []);
  // A part in the middle is lost.
  const part = followed.files.find((name) => name.split('-')[1] === '2');
  rmSync(join(followed.store, 'steps', part ?? ''));
  const problems = (await sqlsync(['check', followed.store, '--json'])).stdout;
  assert.match(problems, /cannot be restored: a file of steps between it/);
  const { at } = followed.states.at(1) as Known;
  assert.equal((await followed.restore(at)).hash, followed.states[1]?.hash);
  assert.equal((await sqlsync(['restore', `${followed.store}#latest`, `${followed.store}.db`])).status, 19);
});

test('a change that is too large for steps, and one of the page size, become snapshots', async (t) => {
  const followed = await Followed.start(t, [], undefined, { SQLSYNC_MAX_CHANGE_BYTES: '17000000' });
  await followed.following.untilEvents('step', 1);
  await followed.note();
  await followed.change('CREATE TABLE large (x)');
  await followed.change(LARGE);
  await followed.change('UPDATE item SET amount = 3 WHERE id = 7');
  // A follower keeps its connection to the origin for a few seconds.
  for (let mode: unknown; mode !== 'delete'; await delay(100))
    mode = await followed.all.app.call('rows', 'PRAGMA journal_mode = DELETE').then(
      ([row]) => row?.[0],
      () => 'busy',
    );
  for (const sql of ['PRAGMA page_size = 2048', 'DROP TABLE large', 'VACUUM'])
    await followed.all.app.call('exec', sql);
  await followed.untilLatest();
  assert.equal((await followed.following.end()).status, 0);
  const snapshots = (await followed.run('snapshots', followed.store))['snapshots'] as { pageSize: number }[];
  assert.ok(snapshots.length >= 3, `${snapshots.length} snapshots`);
  for (const { hash, at } of followed.states) assert.equal((await followed.restore(at)).hash, hash, at);
});

test('a store that cannot be written for a while gets the newest state afterwards, and the failure is told', async (t) => {
  const followed = await Followed.start(t);
  await followed.following.untilEvents('step', 1);
  await followed.change(CHANGES[0] as string);
  const steps = join(followed.store, 'steps');
  renameSync(steps, `${steps}-away`);
  writeFileSync(steps, '');
  await followed.all.app.call('exec', CHANGES[1] as string);
  const [failure] = await followed.following.untilEvents('failure', 1);
  assert.equal(failure?.['code'], 'STORE_UNAVAILABLE');
  rmSync(steps);
  renameSync(`${steps}-away`, steps);
  await followed.untilLatest();
  await followed.change(CHANGES[2] as string);
  assert.equal((await followed.following.end()).status, 0);
  assert.equal((await followed.restore('latest')).hash, followed.states.at(-1)?.hash);
});
