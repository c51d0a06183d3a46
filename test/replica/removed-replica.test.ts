import assert from 'node:assert/strict';
import { renameSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { readMark } from '../../src/beside/mark.ts';
import { pageCount } from '../../src/pages/page-types.ts';
import type { PageSize } from '../../src/pages/page-types.ts';
import { inspectReplica, openSink } from '../../src/replica/open-replica.ts';
import { ReplicaMovedError } from '../../src/replica/replica-error.ts';
import { smallDatabase } from '../pages/databases.ts';
import { tempDir } from '../support/compare.ts';
import { syncHere } from '../support/sync.ts';

const LOOK = { dryRun: false, followLinks: false };

test('a replica that is removed while the sync looks at it asks for a new look, and counts as no foreign database', async (t) => {
  const folder = tempDir(t);
  const [origin, replica] = [join(folder, 'origin.db'), join(folder, 'r.db')];
  smallDatabase(origin, { rows: 40 });
  await syncHere({ origin, replica });
  const place = inspectReplica(replica, LOOK);
  const target = { pageSize: 4096 as PageSize, pageCount: pageCount(1), fileMode: 0o600 };
  const options = { busyTimeoutMs: 0, overwrite: false, replace: false };
  rmSync(replica);
  // The removal may come before the mark is read, or after it.
  for (const mark of [place.mark, undefined])
    await assert.rejects(openSink({ ...place, mark }, target, options), ReplicaMovedError);

  const foreign = join(folder, 'foreign.db');
  smallDatabase(foreign, { rows: 5, seed: 5 });
  renameSync(foreign, replica);
  assert.equal(readMark(replica), undefined);
  await assert.rejects(openSink({ ...place, mark: undefined }, target, options), {
    code: 'REPLICA_NOT_MARKED',
  });
});
