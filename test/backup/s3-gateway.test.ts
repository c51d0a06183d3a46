import assert from 'node:assert/strict';
import { mkdirSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import type { TestContext } from 'node:test';
import Database from 'better-sqlite3';
import { generateDatabase } from '../../fixtures/generate.ts';
import { Random } from '../../fixtures/random.ts';
import { STORE_FOLDERS } from '../../src/backup/backends/backend.ts';
import { parseS3Address } from '../../src/backup/backends/s3/address.ts';
import { versionsPageOf } from '../../src/backup/backends/s3/responses.ts';
import type { FileVersion } from '../../src/backup/backends/s3/responses.ts';
import { S3Backend } from '../../src/backup/backends/s3/s3-backend.ts';
import { Command, sqlsync, summaryOf } from '../cli/command.ts';
import type { Summary } from '../cli/command.ts';
import { nothingDone, StoreModel } from '../model/store-model.ts';
import { smallDatabase } from '../pages/databases.ts';
import { sha256File, tempDir } from '../support/compare.ts';
import { bucketClient, makeBucket } from '../support/s3-bucket.ts';
import { GATEWAY_KEYS, OTHER_KEYS, startGateway, whyNoGateway } from '../support/s3-gateway.ts';
import type { Gateway } from '../support/s3-gateway.ts';
import { backendSuite } from './backend-suite.ts';
import { ClockedBackend } from './clocked-backend.ts';
import { useEveryCommand } from './every-command.ts';
import { assertStored, backupHere, storeHere } from './store-here.ts';

/** Repeat a failure with `SQLSYNC_SEED=… npm test`, more cases with SQLSYNC_RUNS. */
const SEED = Number(process.env['SQLSYNC_SEED'] ?? Date.now() % 2 ** 31);
const RUNS = Number(process.env['SQLSYNC_RUNS'] ?? 1);

const DAYS = 8;

const DOCS = readFileSync(join(import.meta.dirname, '..', '..', 'docs', 'stores.md'), 'utf8');

// One gateway for all tests of a real service, because it takes longer to start than they take.
describe('a real S3 service', { skip: whyNoGateway() }, () => {
  let gateway: Gateway;
  let stores = 0;
  const newStore = (bucket: string = 'bucket'): string => `s3:${gateway.url}/${bucket}/stores/${++stores}`;
  before(async () => {
    gateway = await startGateway();
    Object.assign(process.env, GATEWAY_KEYS);
    await makeBucket(newStore());
  });
  after(() => gateway?.stop());

  backendSuite('S3', () => {
    const address = newStore();
    return Promise.resolve(() => new S3Backend({ address }));
  });

  test('a backend in S3 lists more files than a page has, and so does its past', async () => {
    // Characters that lists have to encode.
    const address = `${newStore('many')}/a+b%41`;
    await makeBucket(address);
    const enabled =
      '<VersioningConfiguration xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Status>Enabled</Status></VersioningConfiguration>';
    await configure(address, 'versioning', enabled);
    const backend = new S3Backend({ address });
    const names = Array.from({ length: 1010 }, (_, i) => String(i).padStart(64, '0'));
    await Promise.all(names.map((name) => backend.put(`marks/${name}`, [])));
    assert.deepEqual((await backend.list('marks')).map(({ name }) => name).toSorted(), names);
    const soon = new Date(Date.now() + 60_000).toISOString();
    const past = new S3Backend({ address: `${address}?at=${soon}` });
    assert.deepEqual((await past.list('marks')).map(({ name }) => name).toSorted(), names);
    assert.deepEqual(await past.list('packs'), []);
    assert.equal((await past.get(`marks/${names.at(-1)}`)).length, 0);
    await assert.rejects(past.get('marks/00'), { code: 'STORE_FILE_MISSING' });
    await assert.rejects(past.delete(`marks/${names[0]}`), { code: 'USAGE' });
  });

  test('in any history of a store in S3, every snapshot that is kept restores to what it was', async (t) => {
    t.diagnostic(`SQLSYNC_SEED=${SEED} SQLSYNC_RUNS=${RUNS}`);
    const done = nothingDone();
    for (let run = 0; run < RUNS; run++) {
      const backend = new ClockedBackend(new S3Backend({ address: newStore() }));
      const model = await StoreModel.start(t, {
        backend,
        random: new Random(SEED + run),
        done,
        isElsewhere: true,
      });
      for (let day = 0; day < DAYS; day++) await model.live();
      await model.finish();
      t.mock.timers.reset();
    }
    t.diagnostic(JSON.stringify(done));
  });

  for (const isEncrypted of [false, true])
    test(`every command does to ${isEncrypted ? 'an encrypted' : 'a plain'} store in S3 what it does to a folder`, async (t) => {
      await useEveryCommand(t, { store: newStore(), env: GATEWAY_KEYS, isEncrypted });
    });

  test('a run tells the requests that the store took', async (t) => {
    const store = newStore();
    const { folder, run } = place(t);
    smallDatabase(join(folder, 'a.db'));
    await run('init', store);
    const first = (await run('backup', 'a.db', store)) as unknown as {
      requests: Record<string, number>;
    };
    const { requests } = first;
    assert.ok(
      (requests['writes'] ?? 0) >= 3 && (requests['bytesWritten'] ?? 0) > 1000,
      JSON.stringify(requests),
    );
    const again = (await run('backup', 'a.db', store)) as unknown as typeof first;
    assert.equal(again.requests['writes'], 1, 'one record, and no list');
    const skipped = (await run('backup', 'a.db', store, '--skip-if-unchanged')) as unknown as typeof first;
    assert.equal(skipped.requests['writes'], 0);
    const said = await sqlsync(['snapshots', store, '-v'], { cwd: folder, env: environment(folder) });
    assert.match(
      said.stderr,
      /note: the store took \d+ reads? \(.*\), \d+ writes? \(PUT and LIST, .*\) and 0 deletes/,
    );
  });

  test('a backup to S3 that is killed loses nothing, and leaves its keys nowhere', async (t) => {
    const store = newStore();
    const { folder, run } = place(t);
    const database = join(folder, 'a.db');
    generateDatabase(database, { seed: 1, pageSize: 4096, rows: 10_000 });
    await run('init', store);
    const backend = new S3Backend({ address: store });
    const command = new Command(['backup', 'a.db', store, '-v'], { cwd: folder, env: environment(folder) });
    let shown = '';
    while ((await backend.list('packs')).length === 0) {
      assert.equal(command.child.exitCode, null, command.said);
      shown += processList([command.child.pid ?? 0, ...command.children()]);
    }
    command.child.kill('SIGKILL');
    const { stdout, stderr } = await command.done;
    const left = readAll(folder);
    for (const text of [shown, stdout, stderr, left])
      assert.ok(!text.includes(GATEWAY_KEYS.AWS_SECRET_ACCESS_KEY));
    await run('backup', 'a.db', store);
    await run('restore', store, 'b.db');
    assert.equal(sha256File(join(folder, 'b.db')), sha256File(database));
    assert.deepEqual((await run('check', store, '--read-data'))['problems'], []);
  });

  test('the policies of the documentation are enough, and no more than that', async (t) => {
    const bucket = 'policies';
    const address = newStore(bucket);
    await makeBucket(address);
    const [all = '', adding = ''] = jsonBlocks();
    const folder = tempDir(t);
    const database = join(folder, 'a.db');
    smallDatabase(database);
    const backend = await asOther(() => new S3Backend({ address }));
    const refused = {
      code: 'STORE_UNAVAILABLE',
      message: /AccessDenied/,
      hint: /s3:GetObject, s3:PutObject/,
    };
    await asOther(() => assert.rejects(storeHere(backend, folder, 0), refused));
    await allow(address, bucket, adding);
    const first = await asOther(async () => {
      const made = await storeHere(backend, folder, 0);
      return { made, snapshot: await backupHere(made, database) };
    });
    change(database);
    await asOther(async () => {
      await backupHere(first.made, database);
      await assertStored(first.made, await first.made.store.snapshots(), new Map());
      assert.deepEqual((await first.made.store.check({ readData: true })).problems, []);
      await assert.rejects(first.made.store.forget([first.snapshot.id]), {
        ...refused,
        hint: /s3:DeleteObject/,
      });
    });
    await allow(address, bucket, all);
    await asOther(async () => {
      await first.made.store.forget([first.snapshot.id]);
      await first.made.store.prune();
    });
    assert.equal((await first.made.store.snapshots()).length, 1);
  });

  test('a store in a bucket that keeps versions can be read as it was, whatever a thief of the keys put and deleted', async (t) => {
    const bucket = 'versions';
    const store = newStore(bucket);
    await makeBucket(store, undefined, { 'x-amz-bucket-object-lock-enabled': 'true' });
    const [, adding = '', rescuing = '', lock = ''] = jsonBlocks();
    await configure(store, 'object-lock', lockXml(lock));
    const { folder, run } = place(t);
    const database = join(folder, 'a.db');
    smallDatabase(database, { rows: 2000 });
    await run('init', store);
    await run('backup', 'a.db', store);
    change(database);
    await run('backup', 'a.db', store);
    const good = sha256File(database);
    const past = new Date(Date.now() + 500);
    await new Promise((done) => setTimeout(done, 1100));

    // The thief may put, and a key that may delete deletes what is left. None may delete a version.
    await allow(store, bucket, adding);
    const thief = await asOther(() => new S3Backend({ address: store }));
    const owner = new S3Backend({ address: store });
    for (const kind of STORE_FOLDERS) {
      for (const { name } of await owner.list(kind)) {
        await asOther(() => thief.put(`${kind}/${name}`, [Buffer.from('worthless')]));
        await owner.delete(`${kind}/${name}`);
      }
    }
    await asOther(() => thief.replaceConfig([Buffer.from('{}')]));
    await assert.rejects(run('restore', store, 'b.db'), /STORE_/);

    const at = ['--at', past.toISOString()];
    await run('restore', store, 'b.db', ...at);
    assert.equal(sha256File(join(folder, 'b.db')), good);
    assert.equal(((await run('snapshots', store, ...at))['snapshots'] as []).length, 2);
    assert.deepEqual((await run('check', store, '--read-data', ...at))['problems'], []);
    await run('init', 'rescued');
    await allow(store, bucket, rescuing);
    const rescuer = { ...environment(folder), ...OTHER_KEYS };
    await summaryOf(['copy', store, 'rescued', ...at], { cwd: folder, env: rescuer });
    await run('restore', 'rescued', 'c.db');
    assert.equal(sha256File(join(folder, 'c.db')), good);

    // Before the store there was nothing, and the past cannot be written.
    await assert.rejects(
      run('restore', store, 'd.db', '--at', '2020-01-01'),
      /STORE_NOT_FOUND.*At that time there was no store/s,
    );
    await assert.rejects(run('backup', 'a.db', `${store}?at=${past.toISOString()}`), /can only be read/);
    for (const version of await versionsOf(store))
      await assert.rejects(
        bucketClient(store).send({
          method: 'DELETE',
          name: version.name,
          query: [['versionId', version.versionId]],
          maxBytes: 65_536,
        }),
        /AccessDenied/,
      );
  });

  test('the past of a place that keeps no versions is refused', async (t) => {
    const store = newStore();
    const { folder, run } = place(t);
    smallDatabase(join(folder, 'a.db'));
    await run('init', store);
    await run('backup', 'a.db', store);
    await run('init', 'here');
    await assert.rejects(
      run('snapshots', store, '--at', '2026-01-01'),
      /USAGE.*keeps no old versions.*was put since then/s,
    );
    // Nothing was put after that moment, so what lies there is what lay there, and so it stays.
    const now = new Date(Date.now() + 5000).toISOString();
    assert.equal(((await run('snapshots', store, '--at', now))['snapshots'] as []).length, 1);
    await assert.rejects(run('restore', 'here', 'b.db', '--at', '2026-01-01'), /USAGE.*keeps no versions/s);
    await assert.rejects(run('snapshots', store, '--at', 'yesterday'), /USAGE.*expected a time/s);
  });
});

/** The versions that locks keep. */
async function versionsOf(address: string): Promise<readonly FileVersion[]> {
  const prefix = parseS3Address(address).prefix;
  const query = [
    ['versions', ''],
    ['encoding-type', 'url'],
    ['prefix', prefix],
  ] as const;
  const answer = await bucketClient(address).send({ method: 'GET', query, maxBytes: 2 ** 24 });
  const page = versionsPageOf(answer, prefix);
  assert.ok(typeof page === 'object' && page.versions.length > 10);
  return page.versions.filter(({ isDeletion }) => !isDeletion).slice(0, 10);
}

/** The policies and settings of the documentation, in order. */
function jsonBlocks(): string[] {
  return [...DOCS.matchAll(/^```json\n([^]*?)^```$/gm)].map(([, text]) => text ?? '');
}

/** What `aws s3api put-object-lock-configuration` makes of its JSON. */
function lockXml(json: string): string {
  const { Rule } = JSON.parse(json) as { Rule: { DefaultRetention: { Mode: string; Days: number } } };
  const { Mode, Days } = Rule.DefaultRetention;
  return `<ObjectLockConfiguration xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><ObjectLockEnabled>Enabled</ObjectLockEnabled><Rule><DefaultRetention><Mode>${Mode}</Mode><Days>${Days}</Days></DefaultRetention></Rule></ObjectLockConfiguration>`;
}

/** Sets something of a bucket. */
async function configure(store: string, what: string, body: string): Promise<void> {
  await bucketClient(store).send({
    method: 'PUT',
    query: [[what, '']],
    body: [Buffer.from(body)],
    maxBytes: 65_536,
  });
}

/** Runs `work` with the keys of the user who has no right but those of a bucket's policy. */
async function asOther<T>(work: () => T | Promise<T>): Promise<T> {
  Object.assign(process.env, OTHER_KEYS);
  try {
    return await work();
  } finally {
    Object.assign(process.env, GATEWAY_KEYS);
  }
}

/** A folder, and the commands in it. */
function place(t: TestContext): { folder: string; run: (...args: string[]) => Promise<Summary> } {
  const folder = tempDir(t);
  for (const name of ['tmp', 'cache']) mkdirSync(join(folder, name));
  const options = { cwd: folder, env: environment(folder) };
  return { folder, run: (...args) => summaryOf(args, options) };
}

function environment(folder: string): NodeJS.ProcessEnv {
  return { ...GATEWAY_KEYS, TMPDIR: join(folder, 'tmp'), XDG_CACHE_HOME: join(folder, 'cache') };
}

function change(path: string): void {
  const db = new Database(path);
  try {
    db.exec('CREATE TABLE IF NOT EXISTS more (x); INSERT INTO more VALUES (hex(randomblob(20000)))');
  } finally {
    db.close();
  }
}

function processList(pids: readonly number[]): string {
  return pids.map((pid) => readFileSync(`/proc/${pid}/cmdline`, 'latin1')).join('\n');
}

/** All bytes of all files below a folder. */
function readAll(folder: string): string {
  const paths = readdirSync(folder, { recursive: true, encoding: 'utf8' }).map((name) => join(folder, name));
  return paths
    .filter((path) => statSync(path).isFile())
    .map((path) => readFileSync(path, 'latin1'))
    .join('');
}

/** Grants the other user what a policy of the documentation says, in the form that a bucket has. */
async function allow(store: string, bucket: string, policy: string): Promise<void> {
  const named = policy.replaceAll('BUCKET', bucket).replaceAll('PREFIX', 'stores');
  const { Statement: statements, ...rest } = JSON.parse(named) as { Statement: object[] };
  const principal = { AWS: ['arn:aws:iam:::user/other'] };
  const whole = {
    ...rest,
    Statement: statements.map((each) => Object.assign(each, { Principal: principal })),
  };
  await configure(store, 'policy', JSON.stringify(whole));
}
