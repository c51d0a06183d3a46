import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { Random } from '../../fixtures/random.ts';
import { smallDatabase } from '../pages/databases.ts';
import { pageImage, tempDir } from '../support/compare.ts';
import { BACKEND_PLACES } from './backend-places.ts';
import { BACKEND_FAULTS, FAULT_JOBS, FaultPlace, prepareBase } from './fault-suite.ts';
import type { FaultBase } from './fault-suite.ts';
import { FaultyBackend } from './faulty-backend.ts';
import type { Fault } from './faulty-backend.ts';
import { MemoryBackend } from './memory-backend.ts';
import { assertStored, backupHere, storeHere } from './store-here.ts';

const SEED = Number(process.env['SQLSYNC_FAULT_SEED'] ?? Date.now() % 2 ** 31);

process.env['SQLSYNC_SCRYPT_N'] = String(2 ** 15);

const shared = mkdtempSync(join(tmpdir(), 'sqlsync-faults-'));
const bases: FaultBase[] = [];
before(async () => {
  for (const [name, password] of [['plain'], ['encrypted', 'secret']] as const) {
    bases.push(await prepareBase(mkdtempSync(join(shared, name)), password));
  }
});
after(() => rmSync(shared, { recursive: true, force: true }));

for (const fault of BACKEND_FAULTS) {
  describe(`if an operation of the backend ${fault.name}`, () => {
    for (const job of FAULT_JOBS) {
      test(job.name, async (t) => {
        const place = new FaultPlace(bases[0] as FaultBase, new MemoryBackend(), tempDir(t));
        const operations = await place.meetAll(job, fault);
        assert.ok(operations > 2, `${operations} operations`);
      });
    }
  });
}

// All operations of all jobs at all of these places: npm run faults -- --group store --filter operation
for (const where of BACKEND_PLACES) {
  test(`if any operation of a store ${where.name} fails, everything holds that holds in memory (SQLSYNC_FAULT_SEED=${SEED})`, async (t) => {
    const random = new Random(SEED);
    const opened = await where.open(tempDir(t), (work) => t.after(work));
    if (typeof opened === 'string') return t.skip(opened);
    for (const base of bases) {
      const memory = new FaultPlace(base, new MemoryBackend(), tempDir(t));
      const place = new FaultPlace(base, opened(), tempDir(t));
      for (const job of FAULT_JOBS) {
        const fault = random.pick(BACKEND_FAULTS);
        const at = random.integer(1, await memory.meet(job, fault, Infinity));
        t.diagnostic(`${fault.name}: operation ${at}, ${job.name}`);
        await place.meet(job, fault, at);
      }
    }
  });
}

test('a backup that is held up before its record fails and leaves no snapshot if prunes take what it wrote', async (t) => {
  const folder = tempDir(t);
  const origin = join(folder, 'origin.db');
  smallDatabase(origin, { rows: 60 });
  const memory = new MemoryBackend();
  // Without a grace period a prune may delete everything that is not in use at the moment.
  const here = await storeHere(memory, folder, 0);
  let atRecord = 0;
  const plan = (number: number, operation: string, name: string): Fault => {
    if (operation === 'put' && name.startsWith('snapshots/')) atRecord = number;
    return 'none';
  };
  const hold = async (number: number): Promise<void> => {
    for (let prunes = number === atRecord ? 3 : 0; prunes > 0; prunes--) await here.store.prune();
  };
  const backend = new FaultyBackend(memory, plan, undefined, hold);
  const held = { ...here, access: { ...here.access, backend, files: backend } };
  await assert.rejects(backupHere(held, origin), { code: 'STORE_PRUNED' });
  assert.deepEqual(await here.store.snapshots(), []);
  const { id } = await backupHere(here, origin);
  await assertStored(here, await here.store.snapshots(), new Map([[id, pageImage(origin)]]));
  assert.deepEqual((await here.store.check({ readData: true })).problems, []);
});
