import { SqlsyncError, systemErrorCode } from '../../../errors.ts';
import { missingFile, missingInPast, StoreDamage, unavailable } from '../../store-error.ts';
import type { Backend, ByteRange, StoredFile, StoreFolder } from '../backend.ts';
import { StoreIdentity } from '../store-identity.ts';
import { isAws, parseS3Address } from './address.ts';
import { DEFAULT_S3_LIMITS, S3Client, S3Refused } from './client.ts';
import type { S3Limits } from './client.ts';
import { CredentialSource } from './credentials.ts';
import type { HttpResponse } from './http.ts';
import { PastFiles } from './past-files.ts';
import { isQuota, listPageOf } from './responses.ts';
import type { Refusal } from './responses.ts';

/** What is needed to reach a store, as data that another thread can get. */
export interface S3Place {
  /** `s3:…`. */
  readonly address: string;
  readonly limits?: Partial<S3Limits> | undefined;
}

const MAX_FILE_BYTES: number = 2 ** 31;
const MAX_LIST_BYTES: number = 16 * 1024 * 1024;

/** A bucket does not come and go as a file system does: how long a look at the config counts. */
const LOOK_MS = 60_000;

const ONLY_IF_NEW = { 'if-none-match': '*' };

/** The files of a store in an S3 bucket. See docs/stores.md for what it needs of the service. */
export class S3Files implements Backend {
  readonly description: string;
  readonly parallel = 8;
  readonly shortcomings: string[] = [];
  readonly #client: S3Client;
  readonly #bucket: string;
  readonly #prefix: string;
  /** Where the files come from if the address names a time. */
  readonly #past: PastFiles | undefined;
  readonly #identity = new StoreIdentity();
  /** When the config was last seen, by both clocks: one stands still while the host sleeps, the other may be set. */
  #seenAt: readonly [steadyMs: number, clockMs: number] = [-Infinity, 0];

  /** Throws SqlsyncError USAGE. */
  constructor({ address, limits }: S3Place, env: NodeJS.ProcessEnv = process.env) {
    const parsed = parseS3Address(address, env);
    this.description = address;
    this.#bucket = parsed.bucket;
    this.#prefix = parsed.prefix;
    const credentials = new CredentialSource(env, { asksMachine: isAws(parsed.endpoint) });
    this.#client = new S3Client(parsed, credentials, { env, limits: { ...DEFAULT_S3_LIMITS, ...limits } });
    if (parsed.at !== undefined) this.#past = new PastFiles(this.#client, parsed.prefix, parsed.at);
  }

  now(): number | undefined {
    return this.#client.now();
  }

  /** Asks for the config, unless the service has just told its time. */
  async settleClock(): Promise<void> {
    if (!this.#client.hasFreshTime()) await this.#configNow();
  }

  /** Only `config` is never overwritten: the names of all other files say what is in them. */
  async put(name: string, pieces: readonly Uint8Array[]): Promise<'created' | 'exists'> {
    this.#refusePast();
    if (name === 'config') return this.#putConfig(pieces);
    await this.#refuseAnother(name);
    await this.#put(name, pieces);
    return 'created';
  }

  async replaceConfig(pieces: readonly Uint8Array[]): Promise<void> {
    this.#refusePast();
    await this.#refuseAnother('config');
    await this.#put('config', pieces);
    this.#identity.replace(Buffer.concat(pieces));
  }

  async get(name: string, range?: ByteRange): Promise<Uint8Array> {
    const { offset = 0, length = MAX_FILE_BYTES } = range ?? {};
    if (length === 0) return new Uint8Array(0);
    const headers = range === undefined ? {} : { range: `bytes=${offset}-${offset + length - 1}` };
    try {
      const version = await this.#past?.versionOf(name);
      if (this.#past !== undefined && version === undefined) throw missingInPast(this.description, name);
      const { status, body } = await this.#client.send({
        method: 'GET',
        name,
        query: version === undefined ? [] : [['versionId', version]],
        headers,
        // A service may answer a range with all of the file.
        maxBytes: MAX_FILE_BYTES,
        expectedBytes: length,
        isWhole: (response) => response.status !== 206 || isRange(response, offset, length),
      });
      const bytes = status === 206 ? own(body) : own(body.subarray(offset, offset + length));
      const isWholeConfig = name === 'config' && offset === 0 && bytes.length < length;
      if (isWholeConfig && !this.#identity.isKnown) {
        this.#identity.learn(bytes);
        this.#seenAt = [performance.now(), Date.now()];
      }
      return bytes;
    } catch (error) {
      if (error instanceof S3Refused && error.refusal.status === 416) return new Uint8Array(0);
      throw this.#failure(`read ${name}`, error, name);
    }
  }

  /**
   * Several pages are of several moments: a new snapshot may be in none, and the one that it relies on gone before its
   * page came. So such a list of snapshots is made again until two are the same.
   */
  async list(folder: StoreFolder): Promise<StoredFile[]> {
    try {
      if (this.#past !== undefined) return await this.#past.list(folder);
      let { files, pages } = await this.#listPages(folder);
      for (let known = ''; folder === 'snapshots' && pages > 1 && known !== namesOf(files);) {
        known = namesOf(files);
        ({ files, pages } = await this.#listPages(folder));
      }
      return files;
    } catch (error) {
      throw this.#failure(`list ${folder}`, error);
    }
  }

  async #listPages(folder: StoreFolder): Promise<{ files: StoredFile[]; pages: number }> {
    const files: StoredFile[] = [];
    const prefix = `${this.#prefix}${folder}/`;
    let pages = 0;
    for (let next: string | undefined = ''; next !== undefined;) {
      pages++;
      const query: [string, string][] = [
        ['list-type', '2'],
        ['encoding-type', 'url'],
        ['prefix', prefix],
      ];
      if (next !== '') query.push(['continuation-token', next]);
      const response = await this.#client.send({
        method: 'GET',
        query,
        maxBytes: MAX_LIST_BYTES,
        isWhole: (answer) => listPageOf(answer, prefix) !== undefined,
      });
      const page = listPageOf(response, prefix);
      files.push(...(page?.files ?? []));
      if (page?.next === next) throw new Error('the service gives the same page of a list again and again');
      next = page?.next;
    }
    return { files, pages };
  }

  async delete(name: string): Promise<void> {
    this.#refusePast();
    try {
      await this.#client.send({ method: 'DELETE', name, maxBytes: MAX_LIST_BYTES });
    } catch (error) {
      if (!isMissingKey(error)) throw this.#failure(`delete ${name}`, error);
    }
  }

  async #put(
    name: string,
    body: readonly Uint8Array[],
    headers: Readonly<Record<string, string>> = {},
  ): Promise<void> {
    const type = { 'content-type': 'application/octet-stream', ...headers };
    try {
      await this.#client.send({ method: 'PUT', name, body, headers: type, maxBytes: MAX_LIST_BYTES });
    } catch (error) {
      if (headers === ONLY_IF_NEW && error instanceof S3Refused) throw error;
      throw this.#failure(`write ${name}`, error);
    }
  }

  /**
   * Puts `config` unless there is one. A second put shows whether the service keeps the condition: some ignore it, and
   * two that make the store at the same moment would then both succeed.
   */
  async #putConfig(pieces: readonly Uint8Array[]): Promise<'created' | 'exists'> {
    if ((await this.#configNow()) !== undefined) return 'exists';
    const outcome = await this.#putIfNew(pieces);
    if (outcome === 'exists') return 'exists';
    if (outcome === 'unknown') await this.#put('config', pieces);
    const keepsCondition = outcome === 'created' && (await this.#putIfNew(pieces, true)) === 'exists';
    if (!keepsCondition)
      this.shortcomings.push(
        'This bucket does not refuse to overwrite a file (If-None-Match): two runs of `init` at the same moment would not notice each other. Backups, which never overwrite, are not affected.',
      );
    const stored = await this.#configNow();
    return stored !== undefined && Buffer.concat(pieces).equals(stored) ? 'created' : 'exists';
  }

  /**
   * 'unknown' for a service that does not know the condition.
   *
   * @param isThere - true if the same bytes were put before, so that finding them says nothing of this put.
   */
  async #putIfNew(pieces: readonly Uint8Array[], isThere = false): Promise<'created' | 'exists' | 'unknown'> {
    try {
      await this.#put('config', pieces, ONLY_IF_NEW);
      return 'created';
    } catch (error) {
      if (!(error instanceof S3Refused)) throw error;
      const { status, code } = error.refusal;
      if (status === 501 || code === 'NotImplemented') return 'unknown';
      if (status !== 412) throw this.#failure('write config', error);
      // The answer to an earlier attempt, which put it, may have been lost.
      const stored = error.isRepeated && !isThere ? await this.#configNow() : undefined;
      return stored !== undefined && Buffer.concat(pieces).equals(stored) ? 'created' : 'exists';
    }
  }

  #refusePast(): void {
    if (this.#past === undefined) return;
    throw new SqlsyncError('USAGE', `Store ${this.description}: the past can only be read`, {
      hint: 'Copy what is needed to another store: sqlsync copy --at TIME STORE OTHER.',
    });
  }

  /** Throws if another store lies there, or none any more. */
  async #refuseAnother(name: string): Promise<void> {
    const [steadyMs, clockMs] = this.#seenAt;
    const isFresh = performance.now() - steadyMs < LOOK_MS && Math.abs(Date.now() - clockMs) < LOOK_MS;
    if (isFresh || !this.#identity.isKnown) return;
    const config = await this.#configNow();
    try {
      this.#identity.compare(config);
      this.#seenAt = [performance.now(), Date.now()];
    } catch (error) {
      throw unavailable(this.description, `write ${name}`, error);
    }
  }

  async #configNow(): Promise<Uint8Array | undefined> {
    try {
      return await this.get('config');
    } catch (error) {
      if (error instanceof SqlsyncError && error.code === 'STORE_FILE_MISSING') return undefined;
      throw error;
    }
  }

  /** @param file - the file whose absence the service may have reported. */
  #failure(what: string, error: unknown, file?: string): unknown {
    if (error instanceof StoreDamage || (error instanceof SqlsyncError && error.code === 'STORE_NOT_FOUND'))
      return error;
    if (error instanceof SqlsyncError)
      return new SqlsyncError(error.code, `Store ${this.description}: ${error.message}`, {
        cause: error.cause,
        ...(error.hint === undefined ? {} : { hint: error.hint }),
      });
    if (file !== undefined && isMissingKey(error))
      return this.#past === undefined
        ? missingFile(this.description, file, error)
        : missingInPast(this.description, file);
    if (!(error instanceof S3Refused))
      return unavailable(this.description, what, error, hintForSystem(error));
    const { refusal } = error;
    const cause = Object.assign(error, { code: systemCodeOf(refusal) });
    return unavailable(this.description, what, cause, hintFor(refusal, this.#bucket));
  }
}

function namesOf(files: readonly StoredFile[]): string {
  return files
    .map(({ name }) => name)
    .toSorted()
    .join();
}

/** True for an answer that has all of a range, or all of it that the file has. */
function isRange({ headers, body }: HttpResponse, offset: number, length: number): boolean {
  const [, first, last, total] = /^bytes (\d+)-(\d+)\/(\d+|\*)$/.exec(headers['content-range'] ?? '') ?? [];
  const size = total === '*' ? Infinity : Number(total);
  const end = Math.min(offset + length, size);
  return (
    Number(first) === offset &&
    body.length === Number(last) + 1 - offset &&
    (size === Infinity || Number(last) + 1 === end)
  );
}

/** Only these words say that a file is missing: a missing bucket answers 404, too. */
function isMissingKey(error: unknown): boolean {
  return (
    error instanceof S3Refused &&
    error.refusal.status === 404 &&
    /^NoSuch(?:Key|Version)$/.test(error.refusal.code)
  );
}

/** Bytes that share no buffer with others. */
function own(bytes: Buffer): Uint8Array {
  const isAlone = bytes.byteOffset === 0 && bytes.buffer.byteLength === bytes.length;
  return isAlone ? new Uint8Array(bytes.buffer as ArrayBuffer) : new Uint8Array(bytes);
}

/** The code by which the rest of the program knows such a failure. */
function systemCodeOf({ status, code }: Refusal): string {
  if (status === 507) return 'ENOSPC';
  if (isQuota(code)) return 'EDQUOT';
  // Of this file alone.
  if (code === 'InvalidObjectState') return 'EIO';
  return status === 403 || status === 401 ? 'EACCES' : 'EBUSY';
}

function hintFor({ status, code, region }: Refusal, bucket: string): string | undefined {
  if (status === 507 || isQuota(code)) return undefined;
  if (code === 'NoSuchBucket') return `Make the bucket ${bucket} first, or check its name and the host.`;
  if (code === 'InvalidAccessKeyId')
    return 'The service does not know this key: check AWS_ACCESS_KEY_ID, or the profile.';
  if (code === 'SignatureDoesNotMatch')
    return 'The secret key is probably wrong: check AWS_SECRET_ACCESS_KEY, or the profile. Else a proxy changes requests.';
  if (code === 'ExpiredToken' || code === 'TokenRefreshRequired')
    return 'The keys have expired: log in again.';
  if (code === 'InvalidObjectState')
    return 'The file was moved to an archive: bring it back first. A store needs a storage class that can be read at once.';
  if (code === 'RequestTimeTooSkewed') return 'Set the clock of this host.';
  if (
    status === 301 ||
    status === 307 ||
    region !== undefined ||
    code === 'IllegalLocationConstraintException'
  )
    return `The bucket is in ${region === undefined ? 'another region' : `the region ${region}`}: add ?region=NAME to the address.`;
  if (status === 401 || status === 403)
    return `The key needs s3:ListBucket on the bucket ${bucket}, and s3:GetObject, s3:PutObject and, to forget and prune, s3:DeleteObject on the store’s files; --at needs s3:ListBucketVersions and s3:GetObjectVersion instead. docs/stores.md has a policy to paste.`;
  if (status === 429 || status >= 500) return 'The service is busy or ill. Run sqlsync again later.';
  return undefined;
}

function hintForSystem(error: unknown): string | undefined {
  const code = systemErrorCode(error) ?? '';
  if (/CERT|SELF_SIGNED|UNABLE_TO/.test(code))
    return 'The certificate of the host cannot be verified. If it is of your own authority, name its certificate in AWS_CA_BUNDLE or NODE_EXTRA_CA_CERTS.';
  if (code === 'ENOTFOUND') return 'Check the host, the bucket and the region in the address of the store.';
  if (code === 'PROXY_REFUSED') return 'Check HTTPS_PROXY, or exempt the host of the store by NO_PROXY.';
  return undefined;
}
