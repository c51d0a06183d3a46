import assert from 'node:assert/strict';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { IncomingMessage } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import type { TestContext } from 'node:test';
import { CredentialSource } from '../../src/backup/backends/s3/credentials.ts';
import { S3Files } from '../../src/backup/backends/s3/s3-files.ts';
import { SqlsyncError } from '../../src/errors.ts';
import { tempDir } from '../support/compare.ts';
import { S3Server } from '../support/s3-server.ts';

const SECRET = 'a-secret-that-nobody-may-see';

describe('the keys of a store in S3', () => {
  test('keys of the environment come before those of a profile', async (t) => {
    const env = home(t, {
      credentials: `[default]\naws_access_key_id=OF-FILE\naws_secret_access_key=${SECRET}\n`,
    });
    const own = { AWS_ACCESS_KEY_ID: 'OF-ENV', AWS_SECRET_ACCESS_KEY: 'x', AWS_SESSION_TOKEN: 'token' };
    assert.deepEqual(await find({ ...env, ...own }), {
      accessKeyId: 'OF-ENV',
      secretAccessKey: 'x',
      sessionToken: 'token',
    });
    assert.equal((await find(env)).accessKeyId, 'OF-FILE');
    assert.equal((await find({ ...env, AWS_ACCESS_KEY_ID: 'half of the keys' })).accessKeyId, 'OF-FILE');
  });

  test('a profile has its keys and its region in either file', async (t) => {
    const config = [
      '[default]',
      'region = eu-west-1',
      '# a comment',
      '[profile other]',
      'region=eu-central-1 ; and another',
      's3 =',
      '    addressing_style = path',
      '[profile "with quotes"]',
      'aws_access_key_id = QUOTED',
      `aws_secret_access_key = ${SECRET}`,
    ].join('\n');
    const credentials = `[other]\r\naws_access_key_id = OTHER\r\naws_secret_access_key = ab=c/+d\r\n`;
    const env = home(t, { config, credentials });
    const other = { ...env, AWS_PROFILE: 'other' };
    assert.deepEqual(await find(other), {
      accessKeyId: 'OTHER',
      secretAccessKey: 'ab=c/+d',
      sessionToken: undefined,
    });
    assert.equal(await source(other).region(), 'eu-central-1');
    assert.equal((await find({ ...env, AWS_PROFILE: 'with quotes' })).accessKeyId, 'QUOTED');
    assert.equal(await source(env).region(), 'eu-west-1');
    assert.equal(await source({ ...env, AWS_DEFAULT_REGION: 'us-west-2' }).region(), 'us-west-2');
    assert.equal(await source(home(t, {})).region(), 'us-east-1');
    const moved = {
      ...env,
      HOME: '/nowhere',
      AWS_SHARED_CREDENTIALS_FILE: join(env.HOME, '.aws', 'credentials'),
    };
    assert.equal((await find({ ...moved, AWS_PROFILE: 'other' })).accessKeyId, 'OTHER');
  });

  test('without any keys the error says where to put them', async (t) => {
    const env = home(t, {});
    await assert.rejects(
      find(env),
      failure(/no keys/, /AWS_ACCESS_KEY_ID.*~\/\.aws\/credentials.*AWS_PROFILE/),
    );
    const web = {
      ...env,
      AWS_WEB_IDENTITY_TOKEN_FILE: '/var/run/token',
      AWS_ROLE_ARN: 'arn:aws:iam::1:role/x',
    };
    await assert.rejects(find(web), failure(/no keys/, /AWS_WEB_IDENTITY_TOKEN_FILE.*credential_process/));
    await assert.rejects(find({ ...env, AWS_PROFILE: 'none' }), failure(/no profile none/, /AWS_PROFILE/));
  });

  test('a profile that needs a login of AWS points to its command', async (t) => {
    for (const setting of ['sso_session = work', 'role_arn = arn:aws:iam::1:role/x']) {
      const env = home(t, { config: `[profile app]\n${setting}\n` });
      const error = failure(
        /app gets its keys by (sso_session|role_arn)/,
        /credential_process = aws configure export/,
      );
      await assert.rejects(find({ ...env, AWS_PROFILE: 'app' }), error);
    }
  });

  test('credential_process is asked for keys, and again before they expire', async (t) => {
    const env = home(t, {});
    const expires = new Date(Date.now() + 3600_000).toISOString();
    const count = join(env.HOME, 'count');
    giveProcess(env, `echo x >> '${count}'; ${keysLine('BY-PROCESS', expires)}`);
    t.mock.timers.enable({ apis: ['Date'], now: Date.now() });
    const keys = source(env);
    const { expiresAtMs, ...found } = await keys.get();
    assert.deepEqual(found, {
      accessKeyId: 'BY-PROCESS',
      secretAccessKey: SECRET,
      sessionToken: 'of-session',
    });
    assert.equal(expiresAtMs, Date.parse(expires));
    await keys.get();
    assert.equal(readFileSync(count, 'utf8').length, 2);
    t.mock.timers.setTime(Date.parse(expires) - 60_000);
    await Promise.all([keys.get(), keys.get()]);
    assert.equal(readFileSync(count, 'utf8').length, 4);
  });

  test('a credential_process that fails shows nothing of what it wrote', async (t) => {
    const env = home(t, {});
    for (const [command, text] of [
      [`echo '{"SecretAccessKey":"${SECRET}"}'`, /gave no keys: the answer holds no keys/],
      [`echo '${SECRET}'`, /the answer is no JSON/],
      [`echo '${SECRET}' >&2; exit 3`, /status 3/],
    ] as const) {
      giveProcess(env, command);
      await assert.rejects(find(env), (error) => {
        assert.ok(!everythingOf(error).includes(SECRET));
        return failure(text, /by hand/)(error);
      });
    }
  });

  test('a container has its keys from the endpoint that its variables name', async (t) => {
    const { url, asked } = await serve(t, ({ headers }) =>
      headers.authorization === 'token-of-container'
        ? { AccessKeyId: 'CONTAINER', SecretAccessKey: SECRET, Token: 'of-session' }
        : 401,
    );
    const env = { ...home(t, {}), AWS_CONTAINER_CREDENTIALS_FULL_URI: `${url}/v1/credentials?x=1` };
    const file = join(env.HOME, 'token');
    writeFileSync(file, 'token-of-container\n');
    for (const token of [
      { AWS_CONTAINER_AUTHORIZATION_TOKEN: 'token-of-container' },
      { AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE: file },
    ])
      assert.equal((await find({ ...env, ...token })).accessKeyId, 'CONTAINER');
    assert.deepEqual(
      asked,
      Array.from({ length: 2 }, () => 'GET /v1/credentials?x=1'),
    );
    await assert.rejects(find(env), failure(/endpoint of the container failed: status 401/, /role/));
  });

  test('an endpoint of keys that is busy is asked again', async (t) => {
    let asks = 0;
    const { url } = await serve(t, () =>
      ++asks < 3 ? (asks === 1 ? 429 : 503) : { AccessKeyId: 'CONTAINER', SecretAccessKey: SECRET },
    );
    const env = { ...home(t, {}), AWS_CONTAINER_CREDENTIALS_FULL_URI: `${url}/keys` };
    assert.equal((await find(env)).accessKeyId, 'CONTAINER');
    assert.equal(asks, 3);
  });

  test('a container sends its token to no other host in the clear', async (t) => {
    const env = { ...home(t, {}), AWS_CONTAINER_CREDENTIALS_FULL_URI: 'http://198.51.100.1/keys' };
    await assert.rejects(find(env), failure(/no address to ask/, /has to be https:/));
  });

  test('a machine of AWS has its keys from its metadata service, with a token first', async (t) => {
    const { url, asked } = await serve(t, ({ method, url: path = '', headers }) => {
      if (method === 'PUT')
        return headers['x-aws-ec2-metadata-token-ttl-seconds'] === '21600' ? 'a-token' : 400;
      if (headers['x-aws-ec2-metadata-token'] !== 'a-token') return 401;
      if (path.endsWith('/security-credentials/')) return 'backup-role\n';
      return {
        AccessKeyId: 'MACHINE',
        SecretAccessKey: SECRET,
        Token: 'of-session',
        Expiration: '2099-01-01T00:00:00Z',
      };
    });
    const env = { ...home(t, {}), AWS_EC2_METADATA_SERVICE_ENDPOINT: url };
    assert.equal((await source(env, true).get()).accessKeyId, 'MACHINE');
    assert.deepEqual(asked, [
      'PUT /latest/api/token',
      'GET /latest/meta-data/iam/security-credentials/',
      'GET /latest/meta-data/iam/security-credentials/backup-role',
    ]);
    // Another service than AWS has no business with them.
    await assert.rejects(source(env, false).get(), failure(/no keys/));
    await assert.rejects(
      source({ ...env, AWS_EC2_METADATA_DISABLED: 'true' }, true).get(),
      failure(/no keys/),
    );
    assert.equal(asked.length, 3);
  });

  test('a run goes on with new keys after the service has refused the old ones as expired', async (t) => {
    const server = await S3Server.start(t);
    const env = home(t, {});
    const [first, second] = ['FIRST', 'SECOND'].map((accessKeyId) => {
      return { accessKeyId, secretAccessKey: SECRET, sessionToken: 'of-session' };
    });
    assert.ok(first && second);
    const marker = join(env.HOME, 'marker');
    giveProcess(env, `if [ -e '${marker}' ]; then ${keysLine('SECOND')}; else ${keysLine('FIRST')}; fi`);
    server.keys = [first];
    const files = new S3Files({ address: server.address }, env);
    await files.put('packs/00', [Buffer.from('x')]);
    server.keys = [second];
    server.twist = ({ headers }) =>
      headers.authorization?.includes('FIRST') === true ? { status: 400, code: 'ExpiredToken' } : undefined;
    // The service knows the old key no more, and says so.
    server.keys.push(first);
    await assert.rejects(files.list('packs'), failure(/ExpiredToken/, /log in again/));
    writeFileSync(marker, '');
    assert.equal((await files.list('packs')).length, 1);
    assert.ok(existsSync(marker));
  });

  test('all of many requests that are refused at once go on with the new keys, which are asked for once', async (t) => {
    const server = await S3Server.start(t);
    const env = home(t, {});
    const keys = ['FIRST', 'SECOND'].map((accessKeyId) => ({
      accessKeyId,
      secretAccessKey: SECRET,
      sessionToken: 'of-session',
    }));
    const [log, marker] = [join(env.HOME, 'log'), join(env.HOME, 'marker')];
    giveProcess(
      env,
      `echo >> '${log}'; if [ -e '${marker}' ]; then ${keysLine('SECOND')}; else ${keysLine('FIRST')}; fi`,
    );
    server.keys = keys;
    const files = new S3Files({ address: server.address }, env);
    await files.put('packs/00', [Buffer.from('x')]);
    writeFileSync(marker, '');
    server.twist = ({ headers }) =>
      headers.authorization?.includes('FIRST') === true ? { status: 400, code: 'ExpiredToken' } : undefined;
    // No answer comes before the last request was signed.
    server.delayMs = 100;
    const all = Array.from({ length: 8 }, (_, i) => files.put(`packs/1${i}`, [Buffer.from('x')]));
    assert.deepEqual(await Promise.all(all), Array(8).fill('created'));
    assert.ok(readFileSync(log, 'utf8').length < 8);
  });
});

type Environment = NodeJS.ProcessEnv & { readonly HOME: string };

/** The environment of a user with these files in ~/.aws. */
function home(
  t: TestContext,
  files: { readonly config?: string; readonly credentials?: string },
): Environment {
  const folder = tempDir(t);
  mkdirSync(join(folder, '.aws'));
  for (const [name, text] of Object.entries(files)) writeFileSync(join(folder, '.aws', name), text);
  return { HOME: folder, PATH: process.env['PATH'] };
}

function giveProcess({ HOME }: Environment, command: string): void {
  const script = join(HOME, 'keys.sh');
  writeFileSync(script, command);
  writeFileSync(join(HOME, '.aws', 'config'), `[default]\ncredential_process = sh '${script}'\n`);
}

function keysLine(id: string, expires?: string): string {
  const keys = {
    Version: 1,
    AccessKeyId: id,
    SecretAccessKey: SECRET,
    SessionToken: 'of-session',
    Expiration: expires,
  };
  return `echo '${JSON.stringify(keys)}'`;
}

function source(env: NodeJS.ProcessEnv, asksMachine: boolean = false): CredentialSource {
  return new CredentialSource(env, { asksMachine });
}

function find(env: NodeJS.ProcessEnv): ReturnType<CredentialSource['get']> {
  return source(env).get();
}

/** A service on this host that answers with JSON, a text, or a status. */
async function serve(
  t: TestContext,
  answer: (request: IncomingMessage) => object | string | number,
): Promise<{ url: string; asked: string[] }> {
  const asked: string[] = [];
  const server = createServer((request, response) => {
    asked.push(`${request.method} ${request.url}`);
    const given = answer(request);
    if (typeof given === 'number') response.statusCode = given;
    response.end(typeof given === 'object' ? JSON.stringify(given) : String(given));
  });
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
  t.after(() => {
    server.close();
    server.closeAllConnections();
  });
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, asked };
}

function failure(text: RegExp, hint: RegExp = /./): (error: unknown) => boolean {
  return (error) => {
    assert.ok(error instanceof SqlsyncError, String(error));
    assert.equal(error.code, 'STORE_UNAVAILABLE');
    assert.match(error.message, text);
    assert.match(error.hint ?? '', hint);
    return true;
  };
}

/** All that a log could show of an error. */
function everythingOf(error: unknown): string {
  const { message, stack, hint, cause } = error as SqlsyncError;
  return `${message} ${stack} ${hint} ${cause === undefined ? '' : everythingOf(cause)} ${JSON.stringify(error)}`;
}
