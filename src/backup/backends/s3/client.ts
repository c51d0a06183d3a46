import { createHash } from 'node:crypto';
import { setTimeout as pause } from 'node:timers/promises';
import { SqlsyncError, systemErrorCode } from '../../../errors.ts';
import type { S3Address } from './address.ts';
import { hostFor } from './host.ts';
import type { CredentialSource } from './credentials.ts';
import { DEFAULT_LIMITS, HttpClient } from './http.ts';
import type { HttpLimits, HttpResponse } from './http.ts';
import { addRequests, noRequests } from '../remote/request-counts.ts';
import { isQuota, refusalOf } from './responses.ts';
import type { Refusal } from './responses.ts';
import { amzDate, EMPTY_HASH, encodePath, encodeQuery, Signer } from './signature.ts';
import type { Credentials } from './signature.ts';

export interface S3Request {
  readonly method: 'GET' | 'PUT' | 'DELETE';
  /** Without the prefix of the store; undefined for the bucket itself. */
  readonly name?: string | undefined;
  readonly query?: readonly (readonly [string, string])[];
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: readonly Uint8Array[];
  /** As in HttpRequest. */
  readonly maxBytes: number;
  readonly expectedBytes?: number;
  /** Rejects an answer that is not whole, so that the request is sent again. */
  readonly isWhole?: (response: HttpResponse) => boolean;
}

export interface S3Limits extends HttpLimits {
  /** How often a request is sent before it fails. */
  readonly attempts: number;
  /** The pause after the first failure, in ms; it doubles with each. */
  readonly firstPauseMs: number;
}

/** About a minute of pauses. */
export const DEFAULT_S3_LIMITS: S3Limits = { ...DEFAULT_LIMITS, attempts: 10, firstPauseMs: 250 };

const MAX_PAUSE_MS = 20_000;

/** A service that has never answered is probably the wrong one. */
const FIRST_ATTEMPTS = 4;

/** How many requests are under way at a time. */
const MAX_PARALLEL = 32;

/** If our clock is further off, requests carry the service's time. Services accept 15 minutes. */
const MAX_SKEW_MS = 60_000;

const FRESH_MS = 60_000;

/** How often one request is corrected: its time, its region and its keys. */
const MAX_CORRECTIONS = 3;

/** What a request was signed with. */
interface Signing {
  readonly region: string;
  readonly credentials: Credentials;
}

/** The service refused a request, and a repetition would not help. */
export class S3Refused extends Error {
  readonly refusal: Refusal;
  /** True if an earlier attempt at this request may have had its effect. */
  readonly isRepeated: boolean;

  constructor(refusal: Refusal, isRepeated: boolean) {
    const { code, message, status } = refusal;
    super([code, message].filter((text) => text !== '').join(': ') || `HTTP status ${status}`);
    this.refusal = refusal;
    this.isRepeated = isRepeated;
  }
}

/** Sends signed requests to one bucket, again where that may help. */
export class S3Client {
  readonly #address: S3Address;
  readonly #credentials: CredentialSource;
  readonly #http: HttpClient;
  readonly #limits: S3Limits;
  readonly #signer = new Signer();
  #region: string | undefined;
  /** How far the service's clock is ahead of ours, by its latest answer; undefined before it. */
  #aheadMs: number | undefined;
  /** The time of the service, and of this host's steady clock, at its latest answer. */
  #told: { readonly placeMs: number; readonly steadyMs: number } | undefined;
  #underWay = 0;
  readonly #waiting: (() => void)[] = [];

  constructor(
    address: S3Address,
    credentials: CredentialSource,
    { env, limits }: { readonly env: NodeJS.ProcessEnv; readonly limits: S3Limits },
  ) {
    this.#address = address;
    this.#credentials = credentials;
    this.#http = new HttpClient(env, limits);
    this.#limits = limits;
    this.#region = address.region;
  }

  /**
   * The time of the service, in ms since 1970, never later than it is; undefined before its first answer. The clock of
   * this host may be set meanwhile: it does not count.
   */
  now(): number | undefined {
    return this.#told && this.#told.placeMs + performance.now() - this.#told.steadyMs;
  }

  /** True if the service told its time within the last minute. */
  hasFreshTime(): boolean {
    return this.#told !== undefined && performance.now() - this.#told.steadyMs < FRESH_MS;
  }

  /**
   * Resolves to an answer of status 2xx. Throws S3Refused, an error of the system, or SqlsyncError (USAGE, or
   * STORE_UNAVAILABLE without credentials).
   */
  async send(request: S3Request): Promise<HttpResponse> {
    while (this.#underWay >= MAX_PARALLEL) await new Promise<void>((resolve) => this.#waiting.push(resolve));
    this.#underWay++;
    try {
      return await this.#sendUntilDone(request);
    } finally {
      this.#underWay--;
      this.#waiting.shift()?.();
    }
  }

  async #sendUntilDone(request: S3Request): Promise<HttpResponse> {
    const hashes = hashesOf(request);
    let corrections = 0;
    for (let attempt = 1; ; attempt++) {
      let failure: Error;
      let response: HttpResponse | undefined;
      const signing = await this.#signing();
      try {
        response = await this.#sendOnce(request, hashes, signing);
        if (response.status < 300 && request.isWhole?.(response) !== false) return response;
        failure = response.status < 300 ? cutOff() : new S3Refused(refusalOf(response), attempt > 1);
      } catch (error) {
        if (error instanceof SqlsyncError || isFinal(error)) throw error;
        failure = error as Error;
      }
      const attempts = this.#aheadMs === undefined ? FIRST_ATTEMPTS : this.#limits.attempts;
      if (attempt >= attempts) throw failure;
      if (failure instanceof S3Refused && !isPassing(failure.refusal)) {
        if (corrections++ === MAX_CORRECTIONS || !(await this.#correct(failure.refusal, signing)))
          throw failure;
        continue;
      }
      await pause(this.#pauseMs(attempt, response));
    }
  }

  async #signing(): Promise<Signing> {
    const credentials = await this.#credentials.get();
    return { credentials, region: (this.#region ??= await this.#credentials.region()) };
  }

  async #sendOnce(
    request: S3Request,
    hashes: Readonly<Record<string, string>>,
    { credentials, region }: Signing,
  ): Promise<HttpResponse> {
    const { method, query = [], body = [], maxBytes, expectedBytes } = request;
    const { bucketPath, ...host } = hostFor(this.#address, region);
    const key = request.name === undefined ? '' : this.#address.prefix + request.name;
    const path = `${bucketPath}/${encodePath(key)}`;
    const isOff = Math.abs(this.#aheadMs ?? 0) > MAX_SKEW_MS;
    const time = new Date(Date.now() + (isOff ? (this.#aheadMs ?? 0) : 0));
    const signed: Record<string, string> = {
      host: host.header,
      'x-amz-date': amzDate(time),
      ...hashes,
      ...request.headers,
      ...(credentials.sessionToken === undefined ? {} : { 'x-amz-security-token': credentials.sessionToken }),
    };
    const payloadHash = hashes['x-amz-content-sha256'] ?? EMPTY_HASH;
    const toSign = { method, path, query, headers: signed, payloadHash };
    const length = body.reduce((sum, piece) => sum + piece.length, 0);
    const headers = {
      ...signed,
      authorization: this.#signer.authorization(toSign, credentials, region, time),
      'accept-encoding': 'identity',
      'content-length': String(length),
    };
    const target = query.length === 0 ? path : `${path}?${encodeQuery(query)}`;
    this.#count(request, length);
    const response = await this.#http.send({
      ...host,
      method,
      path: target,
      headers,
      body,
      maxBytes,
      expectedBytes,
    });
    addRequests({ ...noRequests(), bytesRead: response.body.length });
    const date = Date.parse(response.headers.date ?? '');
    if (Number.isNaN(date)) this.#aheadMs ??= 0;
    else {
      this.#aheadMs = date - response.begunAtMs;
      const sinceMs = Math.max(0, Date.now() - response.begunAtMs);
      this.#told = { placeMs: date, steadyMs: performance.now() - sinceMs };
    }
    return response;
  }

  #count({ method, name }: S3Request, length: number): void {
    const isRead = method === 'GET' && name !== undefined;
    addRequests({
      reads: isRead ? 1 : 0,
      writes: isRead || method === 'DELETE' ? 0 : 1,
      deletes: method === 'DELETE' ? 1 : 0,
      bytesRead: 0,
      bytesWritten: length,
    });
  }

  /**
   * Makes good what the refusal says was wrong with the request: its region, its time, or expired keys. Another request
   * may have done so since this one was signed.
   */
  async #correct({ code, region }: Refusal, signing: Signing): Promise<boolean> {
    // The refusal came with the right time.
    if (code === 'RequestTimeTooSkewed') return true;
    if (EXPIRED.has(code)) return this.#credentials.renew(signing.credentials);
    if (region === undefined || region === signing.region || this.#address.region !== undefined) return false;
    this.#region = region;
    return true;
  }

  /** Random, so that several clients do not come back together. */
  #pauseMs(attempt: number, response: HttpResponse | undefined): number {
    const askedMs = Number(response?.headers['retry-after'] ?? 0) * 1000;
    const fullMs = Math.min(MAX_PAUSE_MS, this.#limits.firstPauseMs * 2 ** (attempt - 1));
    return Math.max(Math.min(askedMs || 0, MAX_PAUSE_MS), fullMs * (0.5 + Math.random() / 2));
  }
}

const EXPIRED: ReadonlySet<string> = new Set(['ExpiredToken', 'TokenRefreshRequired', 'InvalidToken']);

const PASSING_CODES: ReadonlySet<string> = new Set([
  'ConditionalRequestConflict',
  'InternalError',
  'OperationAborted',
  'RequestTimeout',
  'ServiceUnavailable',
  'SlowDown',
  'Throttling',
  'ThrottlingException',
  // The body was damaged on its way.
  'BadDigest',
  'XAmzContentSHA256Mismatch',
  'IncompleteBody',
]);

/** True for a refusal that may not come again: the service is busy, or something was lost on the way. */
function isPassing({ status, code }: Refusal): boolean {
  if (isQuota(code) || status === 501 || status === 505 || status === 507) return false;
  return status >= 500 || status === 408 || status === 425 || status === 429 || PASSING_CODES.has(code);
}

/** True for an error before any answer that would come again: of a certificate, a proxy, or our own. */
function isFinal(error: unknown): boolean {
  const code = systemErrorCode(error) ?? '';
  return (
    code === '' ||
    /^(?:ERR_TLS_|ERR_SSL_|ERR_INVALID|ERR_UNESCAPED|PROXY_REFUSED$|EPROTO$)|CERT|SELF_SIGNED|UNABLE_TO/.test(
      code,
    )
  );
}

function hashesOf({ method, body = [] }: S3Request): Record<string, string> {
  if (method !== 'PUT') return { 'x-amz-content-sha256': EMPTY_HASH };
  const [sha256, md5] = [createHash('sha256'), createHash('md5')];
  for (const piece of body) for (const hash of [sha256, md5]) hash.update(piece);
  return { 'x-amz-content-sha256': sha256.digest('hex'), 'content-md5': md5.digest('base64') };
}

function cutOff(): Error {
  return Object.assign(new Error('the answer is not whole'), { code: 'ECONNRESET' });
}
