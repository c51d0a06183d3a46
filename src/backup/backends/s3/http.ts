import { readFileSync } from 'node:fs';
import { Agent as PlainAgent, request as plainRequest } from 'node:http';
import type { ClientRequest, IncomingHttpHeaders, IncomingMessage } from 'node:http';
import { Agent, request as tlsRequest } from 'node:https';
import { sanitizeText, SqlsyncError } from '../../../errors.ts';
import { proxyFor, TunnelAgent } from './proxy.ts';

export interface HttpRequest {
  readonly isTls: boolean;
  readonly hostname: string;
  readonly port: number;
  readonly method: string;
  /** With the query, as it was signed. */
  readonly path: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: readonly Uint8Array[];
  /** The most bytes that the answer may have, if it is no error. */
  readonly maxBytes: number;
  /** How many it probably has, for the time that it may take; `maxBytes` if missing. */
  readonly expectedBytes?: number | undefined;
}

export interface HttpResponse {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly body: Buffer;
  /** When it began to come, in ms since 1970: its body may take long. */
  readonly begunAtMs: number;
}

/** Times in ms. */
export interface HttpLimits {
  /** Without a byte in either direction for so long, a request has failed. */
  readonly idleMs: number;
  /** The time of a request besides that of its bytes. */
  readonly answerMs: number;
}

export const DEFAULT_LIMITS: HttpLimits = { idleMs: 30_000, answerMs: 60_000 };

/** A line that carries less is not worth waiting for. */
const LEAST_BYTES_PER_MS = 32;

const MAX_SOCKETS = 32;

/** What is read of an error. */
const MAX_ERROR_BYTES: number = 64 * 1024;

/** Files of more bytes are read in ranges, so no request needs the time for them. */
const MAX_TIMED_BYTES: number = 128 * 1024 * 1024;

/**
 * Sends requests over connections that stay open. The certificate of the host is always verified, against the system's
 * roots that Node.js has, NODE_EXTRA_CA_CERTS, or the file AWS_CA_BUNDLE instead.
 */
export class HttpClient {
  readonly #limits: HttpLimits;
  readonly #env: NodeJS.ProcessEnv;
  readonly #agents = new Map<string, Agent | PlainAgent>();

  constructor(env: NodeJS.ProcessEnv, limits: HttpLimits) {
    this.#env = env;
    this.#limits = limits;
  }

  /**
   * Resolves to whatever the host answers, whole. Rejects with the system's errors, ETIMEDOUT, and ECONNRESET for a body
   * that is cut off; USAGE if the environment names no proper proxy or certificate file.
   */
  send(request: HttpRequest): Promise<HttpResponse> {
    const { isTls, hostname, port, method, path, headers, body } = request;
    const agent = this.#agentFor(request);
    return new Promise((resolve, reject) => {
      const options = { hostname, port, method, path, headers, agent, setHost: false };
      const sending = isTls ? tlsRequest({ ...options, rejectUnauthorized: true }) : plainRequest(options);
      const bytes =
        body.reduce((sum, { length }) => sum + length, 0) +
        Math.min(request.expectedBytes ?? request.maxBytes, MAX_TIMED_BYTES);
      const limitMs = this.#limits.answerMs + bytes / LEAST_BYTES_PER_MS;
      const deadline = setTimeout(() => giveUp(sending, limitMs), limitMs);
      sending.setTimeout(this.#limits.idleMs, () => giveUp(sending, this.#limits.idleMs));
      sending.on('response', (response) => {
        read(response, request).then(resolve, (error: unknown) => {
          sending.destroy();
          reject(error);
        });
      });
      sending.on('error', reject);
      sending.on('close', () => clearTimeout(deadline));
      for (const piece of body) if (piece.length > 0) sending.write(piece);
      sending.end();
    });
  }

  #agentFor({ isTls, hostname, port }: HttpRequest): Agent | PlainAgent {
    const name = `${isTls} ${hostname}:${port}`;
    const known = this.#agents.get(name);
    if (known !== undefined) return known;
    const options = { keepAlive: true, maxSockets: MAX_SOCKETS, scheduling: 'lifo' as const };
    const proxy = isTls ? proxyFor(hostname, port, this.#env) : undefined;
    const tls = { ...options, ...this.#trusted() };
    const agent = !isTls
      ? new PlainAgent(options)
      : proxy === undefined
        ? new Agent(tls)
        : new TunnelAgent(proxy, tls);
    this.#agents.set(name, agent);
    return agent;
  }

  #trusted(): { ca?: Buffer } {
    const file = this.#env['AWS_CA_BUNDLE'] ?? '';
    if (file === '') return {};
    try {
      return { ca: readFileSync(file) };
    } catch (error) {
      throw new SqlsyncError(
        'USAGE',
        `AWS_CA_BUNDLE names ${sanitizeText(file, 200)}, which cannot be read`,
        {
          hint: 'Name a file of certificates in PEM form.',
          cause: error,
        },
      );
    }
  }
}

function giveUp(sending: ClientRequest, ms: number): void {
  const text = `no answer within ${Math.round(ms / 1000)} s`;
  sending.destroy(Object.assign(new Error(text), { code: 'ETIMEDOUT' }));
}

async function read(response: IncomingMessage, { maxBytes, method }: HttpRequest): Promise<HttpResponse> {
  const status = response.statusCode ?? 0;
  const begunAtMs = Date.now();
  const pieces: Buffer[] = [];
  let bytes = 0;
  for await (const piece of response as AsyncIterable<Buffer>) {
    bytes += piece.length;
    if (status >= 300 && bytes > MAX_ERROR_BYTES) continue;
    if (status < 300 && bytes > maxBytes) throw reset(`the answer has more than ${maxBytes} bytes`);
    pieces.push(piece);
  }
  const expected = response.headers['content-length'];
  const isCut = expected !== undefined && method !== 'HEAD' && Number(expected) !== bytes;
  if (!response.complete || isCut) throw reset('the answer was cut off');
  return { status, headers: response.headers, body: Buffer.concat(pieces), begunAtMs };
}

function reset(text: string): Error {
  return Object.assign(new Error(text), { code: 'ECONNRESET' });
}
