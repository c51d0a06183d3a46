import assert from 'node:assert/strict';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { assertRefused, sqlsync, summaryOf } from '../cli/command.ts';
import type { Summary } from '../cli/command.ts';
import { change, smallDatabase } from '../pages/databases.ts';
import { sha256File, tempDir } from '../support/compare.ts';

const MORE = 'CREATE TABLE IF NOT EXISTS more (x); INSERT INTO more VALUES (hex(randomblob(20000)))';

interface Backup {
  readonly snapshot: { readonly id: string; readonly parent: string | null };
}

/** A store elsewhere, and how commands reach it. */
export interface StoreElsewhere {
  readonly store: string;
  readonly env: NodeJS.ProcessEnv;
  readonly isEncrypted: boolean;
}

/** Runs every command on a store that is not there yet, and checks that each does what it does to a folder. */
export async function useEveryCommand(
  t: TestContext,
  { store, env: given, isEncrypted }: StoreElsewhere,
): Promise<void> {
  const folder = tempDir(t);
  for (const name of ['tmp', 'cache', 'state']) mkdirSync(join(folder, name), { mode: 0o700 });
  for (const name of ['password', 'next']) writeFileSync(join(folder, name), `the ${name}\n`);
  const env = {
    ...given,
    SQLSYNC_SCRYPT_N: String(2 ** 15),
    TMPDIR: join(folder, 'tmp'),
    XDG_CACHE_HOME: join(folder, 'cache'),
    XDG_STATE_HOME: join(folder, 'state'),
    ...(isEncrypted ? { SQLSYNC_PASSWORD_FILE: join(folder, 'password') } : {}),
  };
  const options = { cwd: folder, env };
  const run = (...args: string[]): Promise<Summary> => summaryOf(args, options);
  smallDatabase(join(folder, 'a.db'), { rows: 2000 });
  await run('init', store, '--grace', '0', ...(isEncrypted ? ['--encrypt'] : []));
  const first = await run('backup', 'a.db', store, '--tag', 'first');
  const old = sha256File(join(folder, 'a.db'));
  change(join(folder, 'a.db'), MORE);
  const [{ snapshot: second }] = (await run('backup', 'a.db', store, '--verify'))['backups'] as [Backup];
  assert.equal(second.parent, (first['backups'] as [Backup])[0].snapshot.id);
  assert.equal(((await run('snapshots', store))['snapshots'] as unknown[]).length, 2);
  assert.equal((await run('verify', 'a.db', store))['same'], true);
  await run('restore', `${store}#${second.parent}`, 'old.db');
  assert.equal(sha256File(join(folder, 'old.db')), old);
  await run('restore', store, 'old.db', '--overwrite');
  assert.equal((await run('verify', 'old.db', `${store}#latest`))['same'], true);
  const { differingPages } = await run('diff', `${store}#${second.parent}`, '#latest');
  assert.ok((differingPages as []).length > 0);
  assert.equal((await run('stats', store))['snapshots'], 2);
  const { stdout } = await sqlsync(['dump', store], options);
  assert.match(stdout, /CREATE TABLE/);
  assert.deepEqual((await run('check', store, '--read-data'))['problems'], []);
  smallDatabase(join(folder, 'b.db'), { rows: 50 });
  const [{ snapshot: other }] = (await run('backup', 'b.db', store))['backups'] as [Backup];
  await run('forget', store, other.id);
  assert.equal(((await run('forget', store, '--keep-last', '1'))['forgotten'] as []).length, 1);
  assert.ok(((await run('prune', store))['packsDeleted'] as number) > 0);
  const repaired = await run('repair', store, '--read-data');
  assert.deepEqual([repaired['configWritten'], repaired['lost']], [false, []]);
  if (isEncrypted) await useKeys(store, options, run);
  const checked = await run('check', store, '--read-data');
  assert.deepEqual([checked['problems'], (checked['intact'] as []).length], [[], 1]);
}

/** Adds a key, removes the old one, and changes the password back to the old one. */
async function useKeys(
  store: string,
  options: { readonly cwd: string; readonly env: NodeJS.ProcessEnv },
  run: (...args: string[]) => Promise<Summary>,
): Promise<void> {
  const next = ['--password-file', 'next'];
  const keys = async (): Promise<{ id: string; isCurrent: boolean }[]> =>
    (await run('key', 'list', store, ...next))['keys'] as { id: string; isCurrent: boolean }[];
  await assertRefused(
    ['snapshots', store, ...next],
    { code: 'STORE_PASSWORD', status: 27, says: /is not that of the key/ },
    options,
  );
  await run('key', 'add', store, '--new-password-file', 'next');
  const old = (await keys()).find(({ isCurrent }) => !isCurrent);
  await run('key', 'remove', store, old?.id ?? '', ...next);
  await assertRefused(
    ['snapshots', store],
    { code: 'STORE_PASSWORD', status: 27, says: /is not that of the key/ },
    options,
  );
  await run('key', 'passwd', store, ...next, '--new-password-file', 'password');
  assert.equal(((await run('key', 'list', store))['keys'] as []).length, 1);
}
