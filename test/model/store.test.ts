import { test } from 'node:test';
import { Random } from '../../fixtures/random.ts';
import { DirectoryBackend } from '../../src/backup/backends/directory-backend.ts';
import { ClockedBackend } from '../backup/clocked-backend.ts';
import { MemoryBackend } from '../backup/memory-backend.ts';
import { tempDir } from '../support/compare.ts';
import { untilAll } from '../support/until-all.ts';
import { nothingDone, StoreModel } from './store-model.ts';

/** Repeat a failure with `SQLSYNC_SEED=… npm test`, more cases with SQLSYNC_RUNS. */
const SEED = Number(process.env['SQLSYNC_SEED'] ?? Date.now() % 2 ** 31);
const RUNS = Number(process.env['SQLSYNC_RUNS'] ?? 8);

process.env['SQLSYNC_SCRYPT_N'] = String(2 ** 15);

const DAYS = 12;

/** A folder makes everything durable, which takes its time. */
const FOLDER_RUNS = Math.ceil(RUNS / 8);

const ENCRYPTED_RUNS = Math.ceil(RUNS / 4);

test('in any history of a store, every snapshot that is kept restores to what it was', async (t) => {
  t.diagnostic(`SQLSYNC_SEED=${SEED} SQLSYNC_RUNS=${RUNS}`);
  const done = nothingDone();
  for (const run of untilAll(RUNS, done)) {
    const given = { backend: new MemoryBackend(), random: new Random(SEED + run), done };
    const model = await StoreModel.start(t, given);
    for (let day = 0; day < DAYS; day++) await model.live();
    await model.finish();
  }
  t.diagnostic(JSON.stringify(done));
});

test('in any history of a store elsewhere, whose backups do without lists, every snapshot that is kept restores to what it was', async (t) => {
  t.diagnostic(`SQLSYNC_SEED=${SEED} SQLSYNC_RUNS=${RUNS}`);
  const done = { ...nothingDone(), recalled: 0 };
  for (const run of untilAll(RUNS, done)) {
    const random = new Random(SEED + run);
    const given = { backend: new MemoryBackend(), random, done, isElsewhere: true };
    const model = await StoreModel.start(t, given);
    for (let day = 0; day < DAYS; day++) await model.live();
    await model.finish();
  }
  t.diagnostic(JSON.stringify(done));
});

test('in any history of a store in a folder, every snapshot that is kept restores to what it was', async (t) => {
  t.diagnostic(`SQLSYNC_SEED=${SEED} SQLSYNC_RUNS=${RUNS}`);
  const done = nothingDone();
  for (let run = 0; run < FOLDER_RUNS; run++) {
    const backend = new ClockedBackend(new DirectoryBackend(tempDir(t)));
    const model = await StoreModel.start(t, { backend, random: new Random(SEED + run), done });
    for (let day = 0; day < DAYS; day++) await model.live();
    await model.finish();
  }
  t.diagnostic(JSON.stringify(done));
});

test('in any history of an encrypted store, every snapshot that is kept restores to what it was', async (t) => {
  t.diagnostic(`SQLSYNC_SEED=${SEED} SQLSYNC_RUNS=${RUNS}`);
  const done = nothingDone();
  for (let run = 0; run < ENCRYPTED_RUNS; run++) {
    const given = { backend: new MemoryBackend(), random: new Random(SEED + run), done };
    const model = await StoreModel.start(t, { ...given, isElsewhere: run % 2 === 1, isEncrypted: true });
    for (let day = 0; day < DAYS; day++) await model.live();
    await model.finish();
  }
  t.diagnostic(JSON.stringify(done));
});
