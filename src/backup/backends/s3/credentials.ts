import { execFile } from 'node:child_process';
import { sanitizeText, SqlsyncError } from '../../../errors.ts';
import { containerCredentials, credentialsIn, machineCredentials } from './credential-endpoints.ts';
import { readProfile } from './credential-files.ts';
import type { Profile } from './credential-files.ts';
import type { Credentials } from './signature.ts';

/** Keys are renewed so long before they expire, or at once if they are refused. */
const RENEW_BEFORE_MS: number = 5 * 60 * 1000;

/** How long to wait after keys could not be renewed. */
const RETRY_MS = 30_000;

const PROCESS_TIMEOUT_MS = 60_000;

/** Without any other word, as for other programs. */
const DEFAULT_REGION = 'us-east-1';

/**
 * The keys for a store, found as AWS's programs find them: in the environment, in the files in ~/.aws, from a
 * `credential_process`, from the container's endpoint, and, for AWS itself, from the machine's role. Keys that expire
 * are renewed.
 */
export class CredentialSource {
  readonly #env: NodeJS.ProcessEnv;
  readonly #asksMachine: boolean;
  #known: Promise<Credentials> | undefined;
  /** The look for other keys that is under way. */
  #renewing: Promise<void> | undefined;
  #expiresAtMs = Infinity;

  /** @param asksMachine - false for a service that is not AWS: keys of AWS are none of its business. */
  constructor(env: NodeJS.ProcessEnv, { asksMachine }: { readonly asksMachine: boolean }) {
    this.#env = env;
    this.#asksMachine = asksMachine;
  }

  /** Throws SqlsyncError STORE_UNAVAILABLE if there are none. */
  get(): Promise<Credentials> {
    if (this.#known === undefined) this.#find();
    else if (Date.now() >= this.#expiresAtMs - RENEW_BEFORE_MS) this.#findBeforeExpiry(this.#known);
    return this.#known as Promise<Credentials>;
  }

  /**
   * Looks for other keys after these were refused as expired. Many requests may be refused at once: the first looks, and
   * the others take what it found. Resolves to false if there are no others.
   */
  async renew(refused: Credentials): Promise<boolean> {
    if (isSame(refused, await this.get())) {
      this.#renewing ??= this.#renew();
      await this.#renewing;
    }
    return !isSame(refused, await this.get());
  }

  async #renew(): Promise<void> {
    try {
      this.#find();
      await this.get();
    } finally {
      this.#renewing = undefined;
    }
  }

  /** The region that the environment or the profile names, else that of AWS's oldest service. */
  region(): Promise<string> {
    const { AWS_REGION: region, AWS_DEFAULT_REGION: usual } = this.#env;
    // A promise, since other sources may have to ask.
    return Promise.resolve(region || usual || readProfile(this.#env).settings['region'] || DEFAULT_REGION);
  }

  /** Keys that cannot be renewed just now serve until they expire. */
  #findBeforeExpiry(old: Promise<Credentials>): void {
    const expiresAtMs = this.#expiresAtMs;
    this.#find();
    const finding = this.#known as Promise<Credentials>;
    this.#known = finding.catch((error: unknown) => {
      if (Date.now() >= expiresAtMs) throw error;
      this.#known = old;
      // Not again with each request.
      this.#expiresAtMs = Math.min(expiresAtMs, Date.now() + RETRY_MS) + RENEW_BEFORE_MS;
      return old;
    });
  }

  #find(): void {
    this.#expiresAtMs = Infinity;
    const finding = this.#keep();
    this.#known = finding;
    // The caller gets the error; the next one looks again.
    finding.catch(() => (this.#known = undefined));
  }

  async #keep(): Promise<Credentials> {
    const found = await this.#look();
    // Keys that are about to expire anyway, or a wrong clock: not again with each request.
    this.#expiresAtMs = Math.max(found.expiresAtMs ?? Infinity, Date.now() + RENEW_BEFORE_MS + 60_000);
    return found;
  }

  async #look(): Promise<Credentials> {
    const found =
      keysIn(this.#env, ['AWS_ACCESS_KEY_ID', 'AWS_SECRET_ACCESS_KEY', 'AWS_SESSION_TOKEN']) ??
      (await ofProfile(readProfile(this.#env), this.#env)) ??
      (await containerCredentials(this.#env)) ??
      (this.#asksMachine ? await machineCredentials(this.#env) : undefined);
    if (found !== undefined) return found;
    const hint =
      (this.#env['AWS_WEB_IDENTITY_TOKEN_FILE'] ?? '') === ''
        ? 'Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or write a profile in ~/.aws/credentials and name it in AWS_PROFILE.'
        : 'sqlsync does not take AWS_WEB_IDENTITY_TOKEN_FILE itself. Use EKS Pod Identity, or a profile with credential_process = aws configure export-credentials --format process.';
    const machine = this.#asksMachine
      ? ' The metadata service of this machine, which AWS has, gave none either: to answer in a container it needs a hop limit of 2.'
      : '';
    throw new SqlsyncError('STORE_UNAVAILABLE', 'There are no keys for the store', { hint: hint + machine });
  }
}

function isSame(one: Credentials, other: Credentials): boolean {
  return one.accessKeyId === other.accessKeyId && one.sessionToken === other.sessionToken;
}

async function ofProfile(profile: Profile, env: NodeJS.ProcessEnv): Promise<Credentials | undefined> {
  const { name, settings } = profile;
  const keys = keysIn(settings, ['aws_access_key_id', 'aws_secret_access_key', 'aws_session_token']);
  if (keys !== undefined) return keys;
  const command = settings['credential_process'];
  if (command !== undefined) return runProcess(name, command, env);
  const other = ['role_arn', 'sso_session', 'sso_start_url', 'web_identity_token_file'].find(
    (setting) => settings[setting] !== undefined,
  );
  if (other === undefined) return undefined;
  throw new SqlsyncError(
    'STORE_UNAVAILABLE',
    `The profile ${sanitizeText(name, 80)} gets its keys by ${other}, which sqlsync does not do itself`,
    {
      hint: `Let AWS's command do it: a profile with the line credential_process = aws configure export-credentials --profile ${sanitizeText(name, 80)} --format process`,
    },
  );
}

function keysIn(
  settings: Readonly<Record<string, string | undefined>>,
  [id, secret, token]: readonly [string, string, string],
): Credentials | undefined {
  const accessKeyId = settings[id]?.trim();
  const secretAccessKey = settings[secret]?.trim();
  if (!accessKeyId || !secretAccessKey) return undefined;
  return { accessKeyId, secretAccessKey, sessionToken: settings[token]?.trim() || undefined };
}

/** As the shell reads the line. What it writes is shown nowhere. */
function runProcess(profile: string, command: string, env: NodeJS.ProcessEnv): Promise<Credentials> {
  return new Promise((resolve, reject) => {
    const options = { env, timeout: PROCESS_TIMEOUT_MS, encoding: 'buffer' as const };
    const child = execFile('/bin/sh', ['-c', command], options, (error, stdout) => {
      try {
        if (error !== null)
          throw new Error(error.killed ? 'no answer within a minute' : `status ${error.code ?? '?'}`);
        resolve(credentialsIn(stdout));
      } catch (failure) {
        const why = failure instanceof Error ? failure.message : '';
        reject(
          new SqlsyncError(
            'STORE_UNAVAILABLE',
            `credential_process of the profile ${sanitizeText(profile, 80)} gave no keys: ${why}`,
            { hint: 'Run the command by hand. It may want a login, such as `aws sso login`.' },
          ),
        );
      }
    });
    child.stdin?.end();
  });
}
