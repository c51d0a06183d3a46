import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { TestContext } from 'node:test';
import type { Backend } from '../../src/backup/backends/backend.ts';
import { S3Files } from '../../src/backup/backends/s3/s3-files.ts';
import type { HttpResponse } from '../../src/backup/backends/s3/http.ts';
import { versionsPageOf } from '../../src/backup/backends/s3/responses.ts';
import { requestCounts } from '../../src/backup/backends/remote/request-counts.ts';
import { isOutOfSpace } from '../../src/backup/backends/out-of-space.ts';
import { SqlsyncError } from '../../src/errors.ts';
import { S3Server, SERVER_KEYS } from '../support/s3-server.ts';
import type { Twist } from '../support/s3-server.ts';
import { backendSuite } from './backend-suite.ts';

const NAME = `packs/${'ab'.repeat(32)}`;
const BYTES = Buffer.from(Array.from({ length: 5000 }, (_, i) => (i * 31) % 251));

/** Pauses and time-outs of tests, in ms. */
const LIMITS = { firstPauseMs: 1, idleMs: 300, attempts: 5 };

useKeys();

backendSuite('S3 (test server)', async (t) => {
  const server = await S3Server.start(t);
  return () => new S3Files({ address: server.address, limits: LIMITS });
});

describe('an S3 backend', () => {
  for (const [what, twist] of Object.entries({
    'too many requests (429)': { status: 429, code: 'TooManyRequests' },
    'SlowDown (503)': { status: 503, code: 'SlowDown', headers: { 'retry-after': '0' } },
    'an error of the service (500)': { status: 500, code: 'InternalError' },
    'an error without a body (502)': { status: 502 },
    'a request that conflicts with another (409)': { status: 409, code: 'ConditionalRequestConflict' },
    'a request that came too slowly (400)': { status: 400, code: 'RequestTimeout' },
    'a connection that ends': { cutsAfter: 0 },
    'an answer that is cut off': { cutsAfter: 10 },
    'no answer': { hangs: true },
  } satisfies Record<string, Twist>)) {
    test(`an S3 backend sends each operation again after ${what}`, async (t) => {
      const { server, backend } = await start(t);
      await backend.put(NAME, [BYTES]);
      // Each first attempt fails: those with an odd number.
      const seen = new Map<string, number>();
      server.twist = ({ operation }) => {
        const count = (seen.get(operation) ?? 0) + 1;
        seen.set(operation, count);
        return count === 1 ? twist : undefined;
      };
      assert.ok(BYTES.equals(await backend.get(NAME)));
      assert.equal((await backend.list('packs'))[0]?.bytes, BYTES.length);
      await backend.put('packs/00', [BYTES]);
      await backend.delete(NAME);
      assert.deepEqual(await names(backend), ['00']);
      assert.deepEqual(
        [...seen.values()].map((count) => count >= 2),
        [true, true, true, true],
      );
    });
  }

  test('an S3 backend gives up after some attempts, and says what the service said', async (t) => {
    const { server, backend } = await start(t);
    await backend.list('packs');
    server.requests.length = 0;
    server.twist = () => ({ status: 503, code: 'SlowDown' });
    await assert.rejects(backend.get(NAME), unavailable(/cannot read packs.*SlowDown/, /later/));
    assert.equal(server.requests.length, LIMITS.attempts);
  });

  test('an S3 backend puts what it was given although the answer to the first put was lost', async (t) => {
    const { server, backend } = await start(t);
    let isFirst = true;
    server.twist = ({ operation }) => {
      if (operation !== 'put' || !isFirst) return undefined;
      isFirst = false;
      return { takesEffect: true, cutsAfter: 0 };
    };
    // The second attempt gets 412: the config is there, and it is ours.
    assert.equal(await backend.put('config', [BYTES]), 'created');
    assert.equal(await backend.put('config', [Buffer.from('another')]), 'exists');
    assert.ok(BYTES.equals(await backend.get('config')));
  });

  test('an S3 backend does not take the config of another for its own after a lost answer', async (t) => {
    const { server, backend } = await start(t);
    server.twist = ({ operation }, number) => {
      if (operation !== 'put' || number > 2) return undefined;
      server.objects.set('store/config', { bytes: Buffer.from('of another'), modified: new Date() });
      return { cutsAfter: 0 };
    };
    assert.equal(await backend.put('config', [BYTES]), 'exists');
    assert.equal(Buffer.from(await backend.get('config')).toString(), 'of another');
  });

  test('an S3 backend finds out by two puts whether the bucket refuses to overwrite config', async (t) => {
    const { backend, server } = await start(t);
    assert.equal(await backend.put('config', [BYTES]), 'created');
    assert.deepEqual(backend.shortcomings, []);
    assert.equal(server.count('put'), 2);
    for (const twist of [undefined, { status: 501, code: 'NotImplemented' }]) {
      const other = await start(t);
      other.server.keepsConditions = false;
      other.server.twist = ({ headers }) => (headers['if-none-match'] === undefined ? undefined : twist);
      assert.equal(await other.backend.put('config', [BYTES]), 'created');
      assert.match(other.backend.shortcomings.join(), /does not refuse to overwrite.*not notice each other/);
      assert.ok(BYTES.equals(await other.backend.get('config')));
    }
  });

  test('an S3 backend lists all pages of a folder, and nothing of others', async (t) => {
    const { server, backend } = await start(t);
    server.keysPerPage = 10;
    const all = Array.from({ length: 25 }, (_, i) => String(i).padStart(3, '0'));
    await Promise.all(all.map((name) => backend.put(`packs/${name}`, [])));
    await backend.put('indexes/00', []);
    server.objects.set('store/packs/', { bytes: Buffer.alloc(0), modified: new Date() });
    server.objects.set('store/packs/below/one', { bytes: Buffer.alloc(0), modified: new Date() });
    assert.deepEqual(await names(backend), all);
    assert.equal(server.count('list'), 3);
  });

  for (const keysInLists of ['encoded', 'encoded in silence', 'as they are'] as const) {
    test(`an S3 backend lists names below any prefix, from a service that gives keys ${keysInLists}`, async (t) => {
      const server = await S3Server.start(t);
      server.keysInLists = keysInLists;
      for (const prefix of ['a+b', '100%', 'c%41', 'größe', 'plain']) {
        const address = `s3:${server.url}/bucket/${prefix}`;
        const backend = new S3Files({ address, limits: LIMITS });
        await backend.put(NAME, [BYTES]);
        server.objects.set(`${prefix}/packs/50% off.txt`, { bytes: BYTES, modified: new Date() });
        assert.ok((await names(backend)).includes(NAME.slice('packs/'.length)), prefix);
        assert.ok(BYTES.equals(await backend.get(NAME)));
      }
    });
  }

  test('the next page of versions begins after the last key, whether the service encodes the marker or not', () => {
    const page = (key: string, marker: string): HttpResponse => ({
      status: 200,
      headers: {},
      begunAtMs: 0,
      body: Buffer.from(
        `<ListVersionsResult><EncodingType>url</EncodingType><IsTruncated>true</IsTruncated><NextKeyMarker>${marker}</NextKeyMarker>` +
          `<Version><Key>${encodeURIComponent(key)}</Key><VersionId>v</VersionId><Size>1</Size><LastModified>2026-11-21T08:00:00Z</LastModified></Version></ListVersionsResult>`,
      ),
    });
    for (const prefix of ['a+b/', '100%/', 'c%41/', 'plain/']) {
      const key = `${prefix}packs/00`;
      for (const marker of [key, encodeURIComponent(key)]) {
        const read = versionsPageOf(page(key, marker), prefix);
        assert.ok(read !== undefined && read !== 'no versions');
        assert.deepEqual(read.next, [['key-marker', key]]);
        assert.equal(read.versions[0]?.name, 'packs/00');
      }
    }
  });

  test('a lost answer to the second put of config does not count as a bucket that overwrites', async (t) => {
    const { server, backend } = await start(t);
    let puts = 0;
    server.twist = ({ operation }) =>
      operation === 'put' && ++puts === 2 ? { takesEffect: true, cutsAfter: 0 } : undefined;
    assert.equal(await backend.put('config', [BYTES]), 'created');
    assert.deepEqual(backend.shortcomings, []);
  });

  test('a list of snapshots in several pages is made again if one came while another went', async (t) => {
    const { server, backend } = await start(t);
    server.keysPerPage = 2;
    for (const name of ['2', '3', '4', '5']) await backend.put(`snapshots/${name}`, []);
    let lists = 0;
    server.twist = ({ operation }) => {
      if (operation !== 'list' || ++lists !== 2) return undefined;
      server.objects.set('store/snapshots/1', { bytes: Buffer.alloc(0), modified: new Date() });
      server.objects.delete('store/snapshots/5');
      return undefined;
    };
    assert.deepEqual(
      (await backend.list('snapshots')).map(({ name }) => name),
      ['1', '2', '3', '4'],
    );
  });

  test('an S3 backend takes its part of an answer that has all of the file', async (t) => {
    const { server, backend } = await start(t);
    await backend.put(NAME, [BYTES]);
    server.ignoresRanges = true;
    const range = { offset: 100, length: 50 };
    assert.ok(BYTES.subarray(100, 150).equals(await backend.get(NAME, range)));
  });

  test('only NoSuchKey says that a file is missing', async (t) => {
    const { server, backend } = await start(t);
    await assert.rejects(backend.get(NAME), { code: 'STORE_FILE_MISSING' });
    server.twist = () => ({ status: 404, code: 'NoSuchBucket' });
    await assert.rejects(backend.get(NAME), unavailable(/NoSuchBucket/, /Make the bucket bucket first/));
    await assert.rejects(backend.delete(NAME), unavailable(/NoSuchBucket/));
    server.twist = () => ({ status: 404 });
    await assert.rejects(backend.get(NAME), unavailable(/404/));
  });

  test('an S3 backend says which rights a key lacks', async (t) => {
    const { server, backend } = await start(t);
    server.twist = () => ({ status: 403, code: 'AccessDenied' });
    await assert.rejects(
      backend.list('packs'),
      unavailable(/AccessDenied/, /s3:ListBucket.*docs\/stores.md/),
    );
    assert.equal(server.requests.length, 1);
  });

  test('an S3 backend says that a file lies in an archive', async (t) => {
    const { server, backend } = await start(t);
    server.twist = () => ({ status: 403, code: 'InvalidObjectState' });
    await assert.rejects(backend.get(NAME), unavailable(/InvalidObjectState/, /archive.*read at once/));
  });

  test('an S3 backend calls a full quota a lack of space', async (t) => {
    const { server, backend } = await start(t);
    for (const twist of [
      { status: 507, code: 'InsufficientStorage' },
      { status: 403, code: 'QuotaExceeded' },
      { status: 400, code: 'XMinioAdminBucketQuotaExceeded' },
    ]) {
      server.twist = () => twist;
      await assert.rejects(
        backend.put(NAME, [BYTES]),
        (error) => isOutOfSpace(error) && /prune/.test(error.hint ?? ''),
      );
    }
  });

  test('an S3 backend goes by the clock of the service', async (t) => {
    for (const aheadMs of [3600_000, -3600_000]) {
      const { server, backend } = await start(t);
      server.aheadMs = aheadMs;
      await backend.put(NAME, [BYTES]);
      const [file] = await backend.list('packs');
      const now = backend.now() ?? 0;
      assert.ok(Math.abs(now - Date.now() - aheadMs) < 60_000);
      assert.ok(Math.abs(now - (file?.modified.getTime() ?? 0)) < 60_000);
      // One was refused, and nothing after it.
      assert.equal(server.requests.length, 3);
    }
  });

  test('an S3 backend follows a bucket to its region, unless the address names one', async (t) => {
    const { server, backend } = await start(t);
    server.region = 'eu-central-1';
    await backend.put(NAME, [BYTES]);
    assert.ok(BYTES.equals(await backend.get(NAME)));
    assert.equal(server.requests.length, 3);
    const given = new S3Files({ address: `${server.address}?region=eu-west-1`, limits: LIMITS });
    await assert.rejects(
      given.get(NAME),
      unavailable(/AuthorizationHeaderMalformed/, /the region eu-central-1.*\?region=/),
    );
    const right = new S3Files({ address: `${server.address}?region=eu-central-1`, limits: LIMITS });
    assert.ok(BYTES.equals(await right.get(NAME)));
  });

  test('all of many first requests follow a bucket to its region', async (t) => {
    const { server, backend } = await start(t);
    server.region = 'eu-central-1';
    server.objects.set(`store/${NAME}`, { bytes: BYTES, modified: new Date() });
    // No answer comes before the last request was signed.
    server.delayMs = 100;
    const all = await Promise.all(Array.from({ length: 8 }, () => backend.get(NAME)));
    for (const bytes of all) assert.ok(BYTES.equals(bytes));
  });

  test('an S3 backend goes where a redirection names the region, and nowhere else', async (t) => {
    const { server, backend } = await start(t);
    server.twist = (_, number) =>
      number === 1
        ? { status: 301, code: 'PermanentRedirect', headers: { 'x-amz-bucket-region': 'eu-west-3' } }
        : undefined;
    server.region = 'eu-west-3';
    await backend.put(NAME, [BYTES]);
    assert.equal(server.requests.length, 2);
    // A host that the answer names might be anyone's.
    const headers = { location: 'http://127.0.0.1:1/bucket/store' };
    server.twist = () => ({ status: 307, code: 'TemporaryRedirect', headers });
    await assert.rejects(backend.get(NAME), unavailable(/TemporaryRedirect/, /another region.*\?region=/));
  });

  test('an S3 backend shows no key in an error, whatever the service answers', async (t) => {
    const { server, backend } = await start(t);
    const secret = 'not-to-be-seen';
    server.keys = [{ ...SERVER_KEYS, secretAccessKey: secret }];
    await assert.rejects(backend.get(NAME), (error) => {
      const { message, hint, cause } = error as SqlsyncError;
      const text = JSON.stringify([message, hint, cause, Object(cause)]) + String((cause as Error).stack);
      assert.ok(!text.includes(SERVER_KEYS.secretAccessKey) && !text.includes(secret));
      return unavailable(/SignatureDoesNotMatch/, /AWS_SECRET_ACCESS_KEY/)(error);
    });
  });

  test('a service that never answered is given up sooner, and named', async () => {
    const backend = new S3Files({ address: 's3:http://127.0.0.1:1/bucket/store', limits: LIMITS });
    await assert.rejects(backend.get(NAME), unavailable(/127\.0\.0\.1:1.*ECONNREFUSED/));
  });

  test('an S3 backend counts what is billed', async (t) => {
    const { server, backend } = await start(t);
    const before = { ...requestCounts };
    await backend.put(NAME, [BYTES]);
    await backend.list('packs');
    await backend.get(NAME);
    await backend.delete(NAME);
    const { reads, writes, deletes, bytesWritten } = requestCounts;
    assert.deepEqual(
      [
        reads - before.reads,
        writes - before.writes,
        deletes - before.deletes,
        bytesWritten - before.bytesWritten,
      ],
      [server.count('get'), server.count('put') + server.count('list'), 1, BYTES.length],
    );
    assert.ok(requestCounts.bytesRead - before.bytesRead >= BYTES.length);
  });
});

/** The keys of the test server. */
function useKeys(): void {
  process.env['AWS_ACCESS_KEY_ID'] = SERVER_KEYS.accessKeyId;
  process.env['AWS_SECRET_ACCESS_KEY'] = SERVER_KEYS.secretAccessKey;
}

async function start(t: TestContext): Promise<{ server: S3Server; backend: S3Files }> {
  const server = await S3Server.start(t);
  return { server, backend: new S3Files({ address: server.address, limits: LIMITS }) };
}

async function names(backend: Backend): Promise<string[]> {
  return (await backend.list('packs')).map(({ name }) => name).toSorted();
}

function unavailable(text: RegExp, hint: RegExp = /./): (error: unknown) => boolean {
  return (error) => {
    assert.ok(error instanceof SqlsyncError, String(error));
    assert.equal(error.code, 'STORE_UNAVAILABLE');
    assert.match(error.message, text);
    assert.match(error.hint ?? '', hint);
    return true;
  };
}
