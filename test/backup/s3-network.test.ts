import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { connect } from 'node:net';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import type { TestContext } from 'node:test';
import { isAws, parseS3Address } from '../../src/backup/backends/s3/address.ts';
import { hostFor } from '../../src/backup/backends/s3/host.ts';
import { proxyFor } from '../../src/backup/backends/s3/proxy.ts';
import { S3Files } from '../../src/backup/backends/s3/s3-files.ts';
import { SqlsyncError } from '../../src/errors.ts';
import { tempDir } from '../support/compare.ts';
import { S3Server, SERVER_KEYS } from '../support/s3-server.ts';

const ENV = {
  AWS_ACCESS_KEY_ID: SERVER_KEYS.accessKeyId,
  AWS_SECRET_ACCESS_KEY: SERVER_KEYS.secretAccessKey,
};

const LIMITS = { firstPauseMs: 1, idleMs: 2000, attempts: 3 };

const NO_OPENSSL =
  spawnSync('openssl', ['version']).status === 0
    ? false
    : 'NOT TESTED WITH A CERTIFICATE: there is no openssl';

const FIPS = 's3-fips.us-east-1.amazonaws.com';

describe('the way to a store in S3', () => {
  test('an address names a service, a bucket and a prefix', () => {
    const own = parseS3Address('s3:https://[::1]:9000/bucket/a/b/?region=eu&style=virtual', {});
    assert.deepEqual(
      [own.bucket, own.prefix, own.endpoint, own.region, own.style],
      ['bucket', 'a/b/', { isTls: true, hostname: '::1', port: 9000 }, 'eu', 'virtual'],
    );
    for (const text of ['s3:bucket/app', 's3://bucket/app/']) {
      const { bucket, prefix, endpoint } = parseS3Address(text, {});
      assert.deepEqual([bucket, prefix, endpoint], ['bucket', 'app/', undefined]);
    }
    assert.equal(parseS3Address('s3:https://host/bucket', {}).prefix, '');
    const aws = parseS3Address('s3:https://s3.eu-west-3.amazonaws.com/bucket/app', {});
    assert.deepEqual([aws.bucket, aws.endpoint, aws.region], ['bucket', undefined, 'eu-west-3']);
    assert.equal(
      parseS3Address('s3:https://s3.eu-west-3.amazonaws.com/b23?region=eu-west-1', {}).region,
      'eu-west-1',
    );
    for (const text of ['s3:bucket', 's3:https://s3.amazonaws.com/b23', `s3:https://${FIPS}/b23`])
      assert.equal(isAws(parseS3Address(text, {}).endpoint), true, text);
    assert.equal(isAws(parseS3Address('s3:https://s3.example.com/b23', {}).endpoint), false);
    const named = parseS3Address('s3:bucket', { AWS_ENDPOINT_URL_S3: 'https://s3.example.com:8443/' });
    assert.deepEqual(named.endpoint, { isTls: true, hostname: 's3.example.com', port: 8443 });
  });

  test('an address that names no store is refused, and its secrets are not shown', () => {
    for (const [text, says] of [
      ['s3:', /no address/],
      ['s3:https://host', /names no bucket/],
      ['s3:https:///bucket/x', /names no host/],
      ['s3:bucket/a//b', /empty part/],
      ['s3:bucket/../b', /empty part/],
      ['s3:bucket/a b', /no address/],
      ['s3:bucket/a?verify=no', /option verify=no/],
      ['s3:bucket/a?at=2026-11-21T08:00:00Z&at=2026-11-22T08:00:00Z', /option at=/],
      ['s3:bucket/a?style=other', /option style=other/],
      ['s3:http://s3.example.com/bucket/x', /no encryption/],
      ['s3:https://key:hidden@host/bucket/x', /holds credentials/],
      ['s3:https://bucket.s3.eu-west-1.amazonaws.com/x', /bucket in the name of its host/],
      ['s3:s3.amazonaws.com/bucket/x', /names a host where its bucket/],
      ['s3:http://key:hidden@host/bucket x', /no address/],
    ] as const) {
      assert.throws(
        () => parseS3Address(text, {}),
        (error) => {
          assert.ok(
            error instanceof SqlsyncError && error.code === 'USAGE' && says.test(error.message),
            text,
          );
          assert.ok(!`${error.message} ${error.hint}`.includes('hidden'), error.message);
          return true;
        },
      );
    }
    for (const text of [
      's3:http://127.0.0.1:9000/bucket',
      's3:http://localhost/bucket',
      's3:http://[::1]/bucket',
    ])
      assert.equal(parseS3Address(text, {}).endpoint?.isTls, false);
    assert.equal(parseS3Address('s3:http://nas/bucket/x?http=plain', {}).endpoint?.hostname, 'nas');
  });

  test('a bucket stands in the name of its host at AWS, and in the path elsewhere', () => {
    const at = (text: string, region: string): string => {
      const { header, bucketPath } = hostFor(parseS3Address(text, {}), region);
      return header + bucketPath;
    };
    assert.equal(at('s3:bucket/x', 'eu-west-1'), 'bucket.s3.eu-west-1.amazonaws.com');
    assert.equal(at('s3:bucket/x', 'cn-north-1'), 'bucket.s3.cn-north-1.amazonaws.com.cn');
    assert.equal(at('s3:bucket.with.dots/x', 'eu-west-1'), 's3.eu-west-1.amazonaws.com/bucket.with.dots');
    assert.equal(at('s3:bucket/x?style=path', 'eu-west-1'), 's3.eu-west-1.amazonaws.com/bucket');
    assert.equal(at('s3:https://host:8443/bucket/x', 'x'), 'host:8443/bucket');
    assert.equal(
      at('s3:https://s3.amazonaws.com/bucket/x', 'eu-west-1'),
      'bucket.s3.eu-west-1.amazonaws.com',
    );
    assert.equal(at(`s3:https://${FIPS}/bucket/x`, 'us-east-1'), `${FIPS}/bucket`);
    assert.equal(at('s3:https://host:443/bucket/x', 'x'), 'host/bucket');
    assert.equal(at('s3:https://host/bucket/x?style=virtual', 'x'), 'bucket.host');
    assert.equal(at('s3:https://[::1]:9000/bucket', 'x'), '[::1]:9000/bucket');
  });

  test('the environment names the proxy of a host, and the hosts that have none', () => {
    const proxy = 'http://proxy:3128';
    const of = (host: string, env: NodeJS.ProcessEnv, port: number = 443): string | undefined =>
      proxyFor(host, port, env)?.host;
    assert.equal(of('s3.example.com', {}), undefined);
    assert.equal(of('s3.example.com', { HTTPS_PROXY: proxy }), 'proxy:3128');
    assert.equal(of('s3.example.com', { https_proxy: 'proxy:3128' }), 'proxy:3128');
    assert.equal(of('s3.example.com', { ALL_PROXY: proxy }), 'proxy:3128');
    assert.equal(of('s3.example.com', { HTTP_PROXY: proxy }), undefined);
    for (const list of [
      '*',
      'example.com',
      '.example.com',
      'a, s3.EXAMPLE.com',
      '*.example.com',
      's3.example.com:443',
    ])
      assert.equal(of('s3.example.com', { HTTPS_PROXY: proxy, NO_PROXY: list }), undefined, list);
    for (const list of ['ample.com', 's3', 's3.example.com:8443', 'xs3.example.com'])
      assert.equal(of('s3.example.com', { HTTPS_PROXY: proxy, NO_PROXY: list }), 'proxy:3128', list);
    assert.equal(of('::1', { HTTPS_PROXY: proxy, NO_PROXY: '[::1]' }), undefined);
    assert.throws(
      () => of('host', { HTTPS_PROXY: 'socks5://user:hidden@proxy' }),
      (error) => {
        assert.ok(
          error instanceof SqlsyncError && error.code === 'USAGE' && !error.message.includes('hidden'),
        );
        return true;
      },
    );
  });

  test(
    'the certificate of a service is verified, and nothing switches that off',
    { skip: NO_OPENSSL },
    async (t) => {
      const { files, bundle } = await tlsStore(t);
      t.after(() => delete process.env['NODE_TLS_REJECT_UNAUTHORIZED']);
      for (const value of ['1', '0']) {
        process.env['NODE_TLS_REJECT_UNAUTHORIZED'] = value;
        await assert.rejects(files(ENV).list('packs'), (error) => {
          assert.ok(error instanceof SqlsyncError && error.code === 'STORE_UNAVAILABLE');
          assert.match(error.hint ?? '', /cannot be verified.*AWS_CA_BUNDLE or NODE_EXTRA_CA_CERTS/);
          return true;
        });
      }
      assert.deepEqual(await files({ ...ENV, AWS_CA_BUNDLE: bundle }).list('packs'), []);
      await assert.rejects(files({ ...ENV, AWS_CA_BUNDLE: '/none' }).list('packs'), {
        code: 'USAGE',
        message: /AWS_CA_BUNDLE/,
      });
    },
  );

  test(
    'a store is reached through a proxy, which sees the name of the host only',
    { skip: NO_OPENSSL },
    async (t) => {
      const { server, files, bundle } = await tlsStore(t);
      const proxy = await startProxy(t, 'Basic dXNlcjpwYXNz');
      const env = { ...ENV, AWS_CA_BUNDLE: bundle };
      const through = files({ ...env, HTTPS_PROXY: `http://user:pass@127.0.0.1:${proxy.port}` });
      await through.put('packs/00', [Buffer.alloc(100_000, 1)]);
      assert.equal((await through.get('packs/00')).length, 100_000);
      // The connection stays open.
      assert.deepEqual(proxy.targets, [new URL(server.url).host]);
      const exempt = files({ ...env, HTTPS_PROXY: 'http://127.0.0.1:1', NO_PROXY: '127.0.0.1' });
      assert.equal((await exempt.list('packs')).length, 1);
    },
  );

  test('a proxy that refuses is named, without its password', { skip: NO_OPENSSL }, async (t) => {
    const { files, bundle } = await tlsStore(t);
    const proxy = await startProxy(t, 'Basic another');
    const env = { ...ENV, AWS_CA_BUNDLE: bundle, HTTPS_PROXY: `http://user:hidden%@127.0.0.1:${proxy.port}` };
    await assert.rejects(files(env).list('packs'), (error) => {
      assert.ok(error instanceof SqlsyncError);
      const text = `${error.message} ${error.hint} ${(error.cause as Error).stack}`;
      assert.match(text, /proxy 127\.0\.0\.1:\d+ answered 407.*HTTPS_PROXY/s);
      assert.ok(!text.includes('hidden'));
      return true;
    });
    assert.equal(proxy.targets.length, 1);
  });
});

interface TlsStore {
  readonly server: S3Server;
  /** The file of the certificate. */
  readonly bundle: string;
  readonly files: (env: NodeJS.ProcessEnv) => S3Files;
}

/** A store at a service with a certificate that no authority has signed. */
async function tlsStore(t: TestContext): Promise<TlsStore> {
  const folder = tempDir(t);
  const [key, bundle] = ['key.pem', 'cert.pem'].map((name) => join(folder, name)) as [string, string];
  const made = [
    'req',
    '-x509',
    '-newkey',
    'ec',
    '-pkeyopt',
    'ec_paramgen_curve:prime256v1',
    '-nodes',
    '-days',
    '2',
  ];
  const subject = ['-subj', '/CN=127.0.0.1', '-addext', 'subjectAltName=IP:127.0.0.1'];
  execFileSync('openssl', [...made, ...subject, '-keyout', key, '-out', bundle], { stdio: 'ignore' });
  const server = await S3Server.start(t, { key: readFileSync(key), cert: readFileSync(bundle) });
  return { server, bundle, files: (env) => new S3Files({ address: server.address, limits: LIMITS }, env) };
}

/** A proxy that lets through who knows the word. */
async function startProxy(t: TestContext, word: string): Promise<{ port: number; targets: string[] }> {
  const targets: string[] = [];
  const server = createServer();
  server.on('connect', ({ url = '', headers }, socket) => {
    targets.push(url);
    if (headers['proxy-authorization'] !== word) return void socket.end('HTTP/1.1 407 Login\r\n\r\n');
    const [host = '', port] = url.split(':');
    const onward = connect(Number(port), host, () => socket.write('HTTP/1.1 200 OK\r\n\r\n'));
    socket.pipe(onward).pipe(socket);
    for (const end of [socket, onward]) end.on('error', () => {});
    t.after(() => {
      socket.destroy();
      onward.destroy();
    });
  });
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
  t.after(() => server.close());
  return { port: (server.address() as AddressInfo).port, targets };
}
