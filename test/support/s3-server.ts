import './environment.ts';
import { createHash } from 'node:crypto';
import { createServer as createPlainServer } from 'node:http';
import type { IncomingHttpHeaders, IncomingMessage, ServerResponse } from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import type { TestContext } from 'node:test';
import { Signer } from '../../src/backup/backends/s3/signature.ts';
import type { Credentials } from '../../src/backup/backends/s3/signature.ts';

export interface ServedRequest {
  readonly method: string;
  /** `get`, `put`, `delete` or `list`. */
  readonly operation: string;
  /** The key within the bucket; the prefix of a list. */
  readonly key: string;
  readonly headers: IncomingHttpHeaders;
  readonly body: Buffer;
}

/** What happens to a request instead of its ordinary answer. */
export interface Twist {
  /** True if the request has its effect first. */
  readonly takesEffect?: boolean;
  readonly status?: number;
  /** The code of an error. */
  readonly code?: string;
  readonly region?: string;
  readonly headers?: Readonly<Record<string, string>>;
  /** Ends the connection: without an answer, or after so many bytes of the ordinary one. */
  readonly cutsAfter?: number;
  /** Never answers. */
  readonly hangs?: boolean;
}

interface Stored {
  readonly bytes: Buffer;
  readonly modified: Date;
}

export const SERVER_KEYS: Credentials = { accessKeyId: 'AKIDSERVER', secretAccessKey: 'server-secret-key' };

const MAX_SKEW_MS = 15 * 60 * 1000;

/**
 * An S3 service for what a real one does not do on demand: it throttles, loses answers, cuts bodies, has another clock or
 * region, and ignores conditions. It checks each signature, and the hashes of each body.
 */
export class S3Server {
  readonly objects: Map<string, Stored> = new Map();
  readonly requests: ServedRequest[] = [];
  /** The keys that it knows. */
  keys: Credentials[] = [SERVER_KEYS];
  region = 'us-east-1';
  /** How far its clock is ahead, in ms. */
  aheadMs = 0;
  keepsConditions = true;
  ignoresRanges = false;
  /** How keys stand in a list: encoded and said so, encoded without a word, or as they are. */
  keysInLists: 'encoded' | 'encoded in silence' | 'as they are' = 'encoded';
  keysPerPage = 1000;
  /** How long each answer takes. */
  delayMs = 0;
  twist: (request: ServedRequest, number: number) => Twist | undefined = () => undefined;
  url = '';

  /** Starts one that ends with the test. */
  static async start(
    t: Pick<TestContext, 'after'>,
    tls?: { readonly key: Buffer; readonly cert: Buffer },
  ): Promise<S3Server> {
    const server = new S3Server();
    const serve = (request: IncomingMessage, response: ServerResponse): void =>
      void server.#serve(request, response);
    const listening = tls === undefined ? createPlainServer(serve) : createTlsServer(tls, serve);
    await new Promise<void>((done) => listening.listen(0, '127.0.0.1', done));
    t.after(() => {
      listening.close();
      listening.closeAllConnections();
    });
    const { port } = listening.address() as AddressInfo;
    server.url = `${tls === undefined ? 'http' : 'https'}://127.0.0.1:${port}`;
    return server;
  }

  /** The address of a store in its bucket. */
  get address(): string {
    return `s3:${this.url}/bucket/store`;
  }

  count(operation: string): number {
    return this.requests.filter((each) => each.operation === operation).length;
  }

  async #serve(incoming: IncomingMessage, response: ServerResponse): Promise<void> {
    const pieces: Buffer[] = [];
    for await (const piece of incoming) pieces.push(piece as Buffer);
    const url = new URL(incoming.url ?? '', 'http://host');
    const key = decodeURIComponent(url.pathname.replace(/^\/bucket\/?/, ''));
    const isList = url.searchParams.get('list-type') === '2';
    const request: ServedRequest = {
      method: incoming.method ?? '',
      operation: isList ? 'list' : (incoming.method ?? '').toLowerCase(),
      key: isList ? (url.searchParams.get('prefix') ?? '') : key,
      headers: incoming.headers,
      body: Buffer.concat(pieces),
    };
    this.requests.push(request);
    response.setHeader('date', new Date(Date.now() + this.aheadMs).toUTCString());
    const twist = this.twist(request, this.requests.length) ?? {};
    if (this.delayMs > 0) await new Promise((done) => setTimeout(done, this.delayMs));
    if (twist.hangs === true) return;
    for (const [name, value] of Object.entries(twist.headers ?? {})) response.setHeader(name, value);
    const refusal = refusalIn(twist) ?? this.#refusalOf(request, url);
    if (refusal !== undefined && twist.takesEffect !== true) return refuse(response, ...refusal);
    const answer = this.#do(request, url);
    if (refusal !== undefined) return refuse(response, ...refusal);
    send(response, answer, twist.cutsAfter);
  }

  #refusalOf({ method, headers, body }: ServedRequest, url: URL): Refusal | undefined {
    const sha256 = createHash('sha256').update(body).digest('hex');
    if (headers['x-amz-content-sha256'] !== sha256) return [400, 'XAmzContentSHA256Mismatch'];
    const md5 = createHash('md5').update(body).digest('base64');
    if (method === 'PUT' && headers['content-md5'] !== md5) return [400, 'BadDigest'];
    const [, id, region = '', names = ''] =
      /Credential=([^/]+)\/\d+\/([^/]+)\/.*SignedHeaders=([^,]+)/.exec(headers.authorization ?? '') ?? [];
    if (region !== this.region) return [400, 'AuthorizationHeaderMalformed', this.region];
    const keys = this.keys.find(({ accessKeyId }) => accessKeyId === id);
    if (keys === undefined) return [403, 'InvalidAccessKeyId'];
    if (keys.sessionToken !== headers['x-amz-security-token']) return [403, 'InvalidToken'];
    const date = String(headers['x-amz-date']);
    const time = new Date(date.replace(/^(....)(..)(..T..)(..)(..Z)$/, '$1-$2-$3:$4:$5'));
    if (Math.abs(time.getTime() - Date.now() - this.aheadMs) > MAX_SKEW_MS)
      return [403, 'RequestTimeTooSkewed'];
    const signed = Object.fromEntries(names.split(';').map((name) => [name, String(headers[name])]));
    const request = {
      method,
      path: url.pathname,
      query: [...url.searchParams],
      headers: signed,
      payloadHash: sha256,
    };
    const expected = new Signer().authorization(request, keys, region, time);
    return headers.authorization === expected ? undefined : [403, 'SignatureDoesNotMatch'];
  }

  #do({ operation, key, headers, body }: ServedRequest, url: URL): Answer {
    if (operation === 'list') return { status: 200, body: Buffer.from(this.#list(key, url)) };
    const stored = this.objects.get(key);
    if (operation === 'put') {
      if (this.keepsConditions && headers['if-none-match'] === '*' && stored !== undefined)
        return errorAnswer(412, 'PreconditionFailed');
      this.objects.set(key, { bytes: body, modified: new Date(Date.now() + this.aheadMs) });
      return { status: 200, body: Buffer.alloc(0) };
    }
    if (operation === 'delete') {
      this.objects.delete(key);
      return { status: 204, body: Buffer.alloc(0) };
    }
    return stored === undefined ? errorAnswer(404, 'NoSuchKey') : this.#read(stored.bytes, headers.range);
  }

  #read(bytes: Buffer, range: string | undefined): Answer {
    const [, from, to] = /^bytes=(\d+)-(\d+)$/.exec(range ?? '') ?? [];
    if (from === undefined || this.ignoresRanges) return { status: 200, body: bytes };
    if (Number(from) >= bytes.length) return errorAnswer(416, 'InvalidRange');
    const body = bytes.subarray(Number(from), Number(to) + 1);
    const headers = { 'content-range': `bytes ${from}-${Number(from) + body.length - 1}/${bytes.length}` };
    return { status: 206, body, headers };
  }

  #list(prefix: string, url: URL): string {
    const after = url.searchParams.get('continuation-token') ?? '';
    const keys = [...this.objects.keys()].filter((key) => key.startsWith(prefix) && key > after).toSorted();
    const page = keys.slice(0, this.keysPerPage);
    const isTruncated = page.length < keys.length;
    const isRaw = this.keysInLists === 'as they are';
    const encoding = this.keysInLists === 'encoded' ? '<EncodingType>url</EncodingType>' : '';
    const contents = page.map((key) => {
      const { bytes, modified } = this.objects.get(key) as Stored;
      const seconds = new Date(Math.floor(modified.getTime() / 1000) * 1000).toISOString();
      return `<Contents><Key>${isRaw ? key : encodeURIComponent(key)}</Key><LastModified>${seconds}</LastModified><Size>${bytes.length}</Size></Contents>`;
    });
    const next = isTruncated ? `<NextContinuationToken>${page.at(-1)}</NextContinuationToken>` : '';
    return `<?xml version="1.0"?><ListBucketResult>${encoding}<IsTruncated>${String(isTruncated)}</IsTruncated>${next}${contents.join('')}</ListBucketResult>`;
  }
}

type Refusal = readonly [status: number, code: string, region?: string | undefined];

interface Answer {
  readonly status: number;
  readonly body: Buffer;
  readonly headers?: Readonly<Record<string, string>>;
}

function refusalIn({ status, code = '', region, cutsAfter }: Twist): Refusal | undefined {
  return status === undefined || cutsAfter !== undefined ? undefined : [status, code, region];
}

function refuse(response: ServerResponse, status: number, code: string, region?: string): void {
  send(response, errorAnswer(status, code, region), undefined);
}

/** As AWS does it, with the keys of the request in the text, which must not be shown. */
function errorAnswer(status: number, code: string, region?: string): Answer {
  const where = region === undefined ? '' : `<Region>${region}</Region>`;
  const text = `<?xml version="1.0"?><Error><Code>${code}</Code><Message>as told</Message>${where}</Error>`;
  return { status, body: Buffer.from(code === '' ? '' : text) };
}

function send(
  response: ServerResponse,
  { status, body, headers }: Answer,
  cutsAfter: number | undefined,
): void {
  if (cutsAfter === 0) return void response.socket?.destroy();
  if (cutsAfter === undefined) {
    response.writeHead(status, { ...headers, 'content-length': body.length });
    return void response.end(body);
  }
  response.writeHead(200, { ...headers, 'content-length': body.length + 1 });
  response.write(body.subarray(0, cutsAfter), () => response.socket?.destroy());
}
