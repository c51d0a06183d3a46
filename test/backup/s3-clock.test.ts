import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import type { ByteRange, LocalBackend } from '../../src/backup/backends/backend.ts';
import { S3Files } from '../../src/backup/backends/s3/s3-files.ts';
import { smallDatabase } from '../pages/databases.ts';
import { tempDir } from '../support/compare.ts';
import { S3Server, SERVER_KEYS } from '../support/s3-server.ts';
import { backupHere, storeHere } from './store-here.ts';

const HOUR_MS = 3600_000;
const GRACE_SECONDS = 3600;

const ENV = {
  AWS_ACCESS_KEY_ID: SERVER_KEYS.accessKeyId,
  AWS_SECRET_ACCESS_KEY: SERVER_KEYS.secretAccessKey,
};

/** A store at a service in this very thread, which cannot answer a reader that waits. */
class StoreInThisThread extends S3Files implements LocalBackend {
  readonly #server: S3Server;

  constructor(server: S3Server) {
    super({ address: server.address }, ENV);
    this.#server = server;
  }

  getNow(name: string, range?: ByteRange): Uint8Array {
    const { bytes } = this.#server.objects.get(`store/${name}`) ?? { bytes: Buffer.alloc(0) };
    const { offset, length } = range ?? { offset: 0, length: bytes.length };
    return new Uint8Array(bytes.subarray(offset, offset + length));
  }
}

for (const [what, aheadMs] of [
  ['behind', -5 * HOUR_MS],
  ['ahead of', 5 * HOUR_MS],
] as const) {
  test(`a prune goes by the clock of the service, which is ${what} that of this host`, async (t) => {
    const server = await S3Server.start(t);
    server.aheadMs = aheadMs;
    const folder = tempDir(t);
    const here = await storeHere(new StoreInThisThread(server), folder, GRACE_SECONDS);
    smallDatabase(join(folder, 'a.db'));
    const { id } = await backupHere(here, join(folder, 'a.db'));
    await here.store.forget([id]);
    const prune = async (afterMs: number): Promise<number[]> => {
      server.aheadMs += afterMs;
      // A prune that begins has heard the time from the service.
      await here.store.snapshots();
      const { packsMarked, packsWaiting, packsDeleted } = await here.store.prune();
      return [packsMarked, packsWaiting, packsDeleted];
    };
    // A pack that was put just now may belong to a backup under way.
    assert.deepEqual(await prune(0), [0, 0, 0]);
    assert.deepEqual(await prune(HOUR_MS + 5000), [1, 0, 0]);
    assert.deepEqual(await prune(HOUR_MS - 5000), [0, 1, 0]);
    assert.deepEqual(await prune(10_000), [0, 0, 1]);
  });
}

test('a prune asks for the time of a service that has been silent for a minute, and for no other', async (t) => {
  const server = await S3Server.start(t);
  const folder = tempDir(t);
  const here = await storeHere(new StoreInThisThread(server), folder, GRACE_SECONDS);
  smallDatabase(join(folder, 'a.db'));
  const { id } = await backupHere(here, join(folder, 'a.db'));
  await here.store.forget([id]);
  const steady = performance.now.bind(performance);
  let silentMs = 0;
  t.mock.method(performance, 'now', () => steady() + silentMs);
  // The clock of this host may be set meanwhile.
  t.mock.timers.enable({ apis: ['Date'], now: Date.now() });
  const pruneAfter = async (ms: number): Promise<[number, number]> => {
    server.aheadMs += ms;
    silentMs += 61_000;
    t.mock.timers.setTime(Date.now() - 1000);
    const { packsMarked, packsDeleted } = await here.store.prune();
    return [packsMarked, packsDeleted];
  };
  assert.deepEqual(await pruneAfter(HOUR_MS + 70_000), [1, 0]);
  assert.deepEqual(await pruneAfter(HOUR_MS + 70_000), [0, 1]);
  const gets = server.requests.filter(({ key }) => key === 'store/config').length;
  await here.store.prune();
  assert.equal(server.requests.filter(({ key }) => key === 'store/config').length, gets);
});
