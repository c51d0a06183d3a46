import assert from 'node:assert/strict';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import type { ByteRange } from '../../src/backup/backends/backend.ts';
import { change, largeDatabase } from '../pages/databases.ts';
import { tempDir } from '../support/compare.ts';
import { MemoryBackend } from './memory-backend.ts';
import { backupHere, storeHere } from './store-here.ts';

/** Counts what is read of packs. */
class CountingBackend extends MemoryBackend {
  bytesRead = 0;

  override getNow(name: string, range?: ByteRange): Uint8Array {
    const bytes = super.getNow(name, range);
    if (name.startsWith('packs/')) this.bytesRead += bytes.length;
    return bytes;
  }
}

describe('a check with all data', () => {
  test('reads whole objects once, and finds a changed byte anywhere', async (t) => {
    const folder = tempDir(t);
    const origin = join(folder, 'origin.db');
    largeDatabase(origin, 8e6);
    const backend = new CountingBackend();
    const here = await storeHere(backend, folder);
    await backupHere(here, origin);
    backend.bytesRead = 0;
    const { problems, intact, packBytes, bytesRead } = await here.store.check({ readData: true });
    assert.deepEqual([problems.length, intact.length, bytesRead], [0, 1, packBytes]);
    assert.ok(packBytes > 4e6, `${packBytes} bytes`);
    assert.ok(backend.bytesRead < packBytes * 1.4, `${backend.bytesRead} of ${packBytes} bytes`);
    change(origin, 'UPDATE t SET x = randomblob(100) WHERE rowid % 50 = 0');
    await backupHere(here, origin);
    for (const [name, bytes] of backend.files) {
      if (!name.startsWith('packs/')) continue;
      for (const at of [40, bytes.length >> 1, bytes.length - 3]) {
        const changed = new Uint8Array(bytes);
        changed[at] = (changed[at] as number) ^ 1;
        backend.files.set(name, changed);
        const found = await here.store.check({ readData: true });
        assert.ok(
          found.problems.some(({ file }) => file === name),
          `${name} at ${at}`,
        );
      }
      backend.files.set(name, bytes);
    }
    assert.deepEqual((await here.store.check({ readData: true })).problems, []);
  });
});
