import assert from 'node:assert/strict';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { runVerify } from '../../src/sync/runs/verify.ts';
import { ChosenBlob } from '../support/chosen-content.ts';
import { assertReplicaOf, tempDir } from '../support/compare.ts';
import { syncHere } from '../support/sync.ts';

describe('content that is chosen to look unchanged', () => {
  test('content that is chosen to look unchanged arrives with every sync', async (t) => {
    const folder = tempDir(t);
    const [origin, replica] = [join(folder, 'o.db'), join(folder, 'r.db')];
    const blob = new ChosenBlob(origin);
    await syncHere({ origin, replica });
    for (let i = 0; i < 16; i++) {
      blob.change();
      const { outcomeName } = await syncHere({ origin, replica });
      assert.equal(outcomeName, 'committed');
      assertReplicaOf(origin, replica);
    }
  });

  test('chosen content deceives --hash xxh64 soon, and verify never', async (t) => {
    const folder = tempDir(t);
    const [origin, replica] = [join(folder, 'o.db'), join(folder, 'r.db')];
    const blob = new ChosenBlob(origin);
    await syncHere({ origin, replica });
    let tries = 0;
    do {
      assert.ok(tries++ < 60, 'XXH64 noticed 60 changes that were made for it');
      blob.change();
      await syncHere({ origin, replica, hash: 'xxh64' });
    } while (blob.isIn(replica));
    const { same, differingPageCount } = await runVerify({ a: origin, b: replica });
    assert.equal(same, false);
    assert.ok(differingPageCount >= 1);
    await syncHere({ origin, replica });
    assert.ok(blob.isIn(replica));
    assert.equal((await runVerify({ a: origin, b: replica })).same, true);
  });
});
