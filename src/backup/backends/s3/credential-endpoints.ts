import { readFileSync } from 'node:fs';
import { isIP } from 'node:net';
import { setTimeout as pause } from 'node:timers/promises';
import { SqlsyncError } from '../../../errors.ts';
import { isLoopback } from './address.ts';
import { HttpClient } from './http.ts';
import type { HttpResponse } from './http.ts';
import type { Credentials } from './signature.ts';

/** These services are on the same host, or not at all. */
const LIMITS = { idleMs: 1000, answerMs: 2000 };

const MAX_BYTES: number = 64 * 1024;

const ATTEMPTS = 3;

/** Addresses that ECS and EKS give containers; no router passes them on. */
const CONTAINER_HOSTS: ReadonlySet<string> = new Set(['169.254.170.2', '169.254.170.23', 'fd00:ec2::23']);

/**
 * The keys of the container that this process runs in, by AWS_CONTAINER_CREDENTIALS_RELATIVE_URI or …_FULL_URI (ECS,
 * EKS Pod Identity); undefined without these variables. Throws SqlsyncError STORE_UNAVAILABLE.
 */
export async function containerCredentials(env: NodeJS.ProcessEnv): Promise<Credentials | undefined> {
  const relative = env['AWS_CONTAINER_CREDENTIALS_RELATIVE_URI'] ?? '';
  const full = env['AWS_CONTAINER_CREDENTIALS_FULL_URI'] ?? '';
  if (relative === '' && full === '') return undefined;
  const url = urlOf(relative === '' ? full : `http://169.254.170.2${relative}`);
  const token = tokenOf(env);
  return askFor('the credentials endpoint of the container', async () => {
    const { status, body } = await ask(env, url, { headers: token === '' ? {} : { authorization: token } });
    if (status !== 200) throw new Error(`status ${status}`);
    return credentialsIn(body);
  });
}

/** Keys go in the clear only where nobody listens. */
function urlOf(text: string): URL {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  const hostname = url?.hostname.replace(/^\[|\]$/g, '') ?? '';
  if (url?.protocol === 'https:') return url;
  if (url?.protocol === 'http:' && (isLoopback(hostname) || CONTAINER_HOSTS.has(hostname))) return url;
  throw new SqlsyncError(
    'STORE_UNAVAILABLE',
    'The credentials endpoint of the container is no address to ask',
    {
      hint: 'AWS_CONTAINER_CREDENTIALS_FULL_URI has to be https:, or http: on this host.',
    },
  );
}

function tokenOf(env: NodeJS.ProcessEnv): string {
  const file = env['AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE'] ?? '';
  if (file === '') return env['AWS_CONTAINER_AUTHORIZATION_TOKEN'] ?? '';
  try {
    return readFileSync(file, 'utf8').trim();
  } catch (error) {
    throw new SqlsyncError('STORE_UNAVAILABLE', 'AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE cannot be read', {
      cause: error,
    });
  }
}

/**
 * The keys of the machine's role, from the metadata service of EC2 in its second version; undefined where no such
 * service answers or the machine has no role. Throws SqlsyncError STORE_UNAVAILABLE if it answers something else.
 */
export async function machineCredentials(env: NodeJS.ProcessEnv): Promise<Credentials | undefined> {
  if ((env['AWS_EC2_METADATA_DISABLED'] ?? '').toLowerCase() === 'true') return undefined;
  const base = env['AWS_EC2_METADATA_SERVICE_ENDPOINT'] || 'http://169.254.169.254';
  const at = (path: string): URL => new URL(path, base);
  const lifetime = { 'x-aws-ec2-metadata-token-ttl-seconds': '21600' };
  const granted = await ask(env, at('/latest/api/token'), { method: 'PUT', headers: lifetime }).catch(
    () => undefined,
  );
  if (granted?.status !== 200) return undefined;
  const headers = { 'x-aws-ec2-metadata-token': granted.body.toString('utf8').trim() };
  const roles = '/latest/meta-data/iam/security-credentials/';
  return askFor('the metadata service of this machine', async () => {
    const named = await ask(env, at(roles), { headers });
    const [role = ''] = named.status === 200 ? named.body.toString('utf8').split('\n') : [];
    if (role === '') return undefined;
    const { status, body } = await ask(env, at(roles + encodeURIComponent(role.trim())), { headers });
    if (status !== 200) throw new Error(`status ${status}`);
    return credentialsIn(body);
  });
}

/** What these services and `credential_process` write. Throws an Error that shows none of it. */
export function credentialsIn(json: Uint8Array): Credentials {
  let record: Readonly<Record<string, unknown>>;
  try {
    record = Object(JSON.parse(Buffer.from(json).toString('utf8'))) as Record<string, unknown>;
  } catch {
    throw new Error('the answer is no JSON');
  }
  const { AccessKeyId: id, SecretAccessKey: secret, Expiration: until } = record;
  // One service calls it Token, the other SessionToken.
  const token = record['SessionToken'] ?? record['Token'];
  if (typeof id !== 'string' || typeof secret !== 'string' || id === '' || secret === '')
    throw new Error('the answer holds no keys');
  const expiresAtMs = typeof until === 'string' ? Date.parse(until) : Number.NaN;
  return {
    accessKeyId: id,
    secretAccessKey: secret,
    sessionToken: typeof token === 'string' && token !== '' ? token : undefined,
    expiresAtMs: Number.isNaN(expiresAtMs) ? undefined : expiresAtMs,
  };
}

async function askFor<T>(what: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error);
    throw new SqlsyncError('STORE_UNAVAILABLE', `No keys for the store: ${what} failed: ${why}`, {
      hint: 'Check that the container or machine has a role that may use the bucket.',
      cause: error,
    });
  }
}

/** Asks again where the service is too busy to answer: many containers of a host start at the same moment. */
async function ask(...question: Parameters<typeof askOnce>): Promise<HttpResponse> {
  for (let attempt = 1; ; attempt++) {
    const response = await askOnce(...question);
    const isBusy = response.status === 429 || response.status >= 500;
    if (!isBusy || attempt === ATTEMPTS) return response;
    await pause(100 * attempt * (0.5 + Math.random()));
  }
}

/** Never through a proxy: the address is on this host. */
function askOnce(
  env: NodeJS.ProcessEnv,
  url: URL,
  { method = 'GET', headers }: { method?: string; headers: Readonly<Record<string, string>> },
): Promise<HttpResponse> {
  const isTls = url.protocol === 'https:';
  const hostname = url.hostname.replace(/^\[|\]$/g, '');
  const port = url.port === '' ? (isTls ? 443 : 80) : Number(url.port);
  const host = isIP(hostname) === 6 ? `[${hostname}]` : hostname;
  return new HttpClient({ ...env, NO_PROXY: '*', no_proxy: '*' }, LIMITS).send({
    isTls,
    hostname,
    port,
    method,
    path: url.pathname + url.search,
    headers: { host: `${host}:${port}`, ...headers },
    body: [],
    maxBytes: MAX_BYTES,
  });
}
