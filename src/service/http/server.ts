import { timingSafeEqual, createHash } from 'node:crypto';
import { once } from 'node:events';
import { createServer } from 'node:http';
import type { IncomingMessage, Server } from 'node:http';
import { isIP } from 'node:net';
import { SqlsyncError, sanitizeLine } from '../../errors.ts';
import type { ReportAnswer } from '../../report/report.ts';
import { STYLE } from '../../report/style.ts';
import type { Status } from '../state/judge.ts';
import { renderPage } from './page.ts';
import { renderMetrics } from './prometheus.ts';
import { renderTargetPage } from './target-page.ts';

/** Where the page is served. */
export interface ListenPlace {
  readonly host: string;
  readonly port: number;
}

/** What is served. Both answer at once. */
export interface Shown {
  status(): Status;
  /** The report of the target with this id. */
  report(id: string): ReportAnswer;
}

/** A shorter token could be guessed. */
const TOKEN_MIN_LENGTH = 16;

/** More browsers than one service has readers. */
const MAX_CONNECTIONS = 100;

/** How long a client may take to ask, in milliseconds: idle ones must not keep others out. */
const HEADERS_LIMIT_MS = 5000;
const REQUEST_LIMIT_MS = 10_000;

/** `127.0.0.1:9247`, `[::1]:9247`, `localhost:9247`. Throws SqlsyncError USAGE. */
export function parseListen(text: string): ListenPlace {
  const [, bracketed, plain = '', port = ''] = /^(?:\[([^\]]*)\]|([^:[\]]*)):(\d{1,5})$/.exec(text) ?? [];
  const host = bracketed ?? plain;
  if (host !== '' && port !== '' && Number(port) <= 65_535) return { host, port: Number(port) };
  throw new SqlsyncError('USAGE', `--listen: "${sanitizeLine(text, 80)}" is not an address and a port`, {
    hint: 'Write --listen 127.0.0.1:9247.',
  });
}

/** The token in the text of its file. Throws SqlsyncError USAGE. */
export function parseToken(text: string): string {
  const token = text.trim();
  if (token.length >= TOKEN_MIN_LENGTH && /^[\x21-\x7e]+$/.test(token)) return token;
  throw new SqlsyncError(
    'USAGE',
    `--token-file: expected one line of at least ${TOKEN_MIN_LENGTH} ASCII characters without spaces`,
    { hint: 'Make one: head -c 24 /dev/urandom | base64 > FILE' },
  );
}

/**
 * Serves the status over HTTP, read-only: `/`, `/target`, `/metrics`, `/healthz`, `/api/status`. Without a token only on a loopback
 * address, and only to requests for one: a page elsewhere could have its own name lead here.
 *
 * @throws {SqlsyncError} USAGE for another address without a token; the system's errors if it is taken.
 */
export async function serveHttp(
  { host, port }: ListenPlace,
  token: string | undefined,
  shown: Shown,
  onWarning: (text: string) => void,
): Promise<Server> {
  if (token === undefined && !isLoopback(host))
    throw new SqlsyncError('USAGE', `--listen: ${sanitizeLine(host)} can be reached from other hosts`, {
      hint: 'Listen on 127.0.0.1, or protect it with --token-file FILE.',
    });
  const limits = {
    headersTimeout: HEADERS_LIMIT_MS,
    requestTimeout: REQUEST_LIMIT_MS,
    keepAliveTimeout: 1000,
  };
  const server = createServer({ ...limits, connectionsCheckingInterval: 1000 }, (request, response) => {
    const answer = answerOrFault(request, token, shown);
    response.writeHead(answer.status, { ...HEADERS, ...answer.headers });
    response.end(request.method === 'HEAD' ? undefined : answer.body);
  });
  server.maxConnections = MAX_CONNECTIONS;
  server.listen(port, host);
  await once(server, 'listening');
  server.on('error', (error) => onWarning(`The page of the status failed: ${error.message}`));
  return server;
}

function answerOrFault(...asked: Parameters<typeof answerTo>): Answer {
  try {
    return answerTo(...asked);
  } catch (error) {
    return say(500, sanitizeLine(String(error), 200));
  }
}

interface Answer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string;
}

/** Nothing may be loaded but the style from here; nothing may frame, embed or keep the answers. */
const HEADERS = {
  'content-security-policy':
    "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
  'x-content-type-options': 'nosniff',
  'x-frame-options': 'DENY',
  'referrer-policy': 'no-referrer',
  'cross-origin-resource-policy': 'same-origin',
  'cross-origin-opener-policy': 'same-origin',
  'cache-control': 'no-store',
} as const;

const TEXT = 'text/plain; charset=utf-8';
const HTML = 'text/html; charset=utf-8';

function answerTo(request: IncomingMessage, token: string | undefined, shown: Shown): Answer {
  if (request.method !== 'GET' && request.method !== 'HEAD')
    return say(405, 'This is read-only.', TEXT, { allow: 'GET, HEAD' });
  // With a token, a page of another name lacks it.
  if (token === undefined && !isLoopback(hostOf(request))) return say(421, 'This address has another name.');
  const url = URL.parse(request.url ?? '/', 'http://localhost');
  if (url === null) return say(400, 'This is no address.');
  if (url.pathname === '/healthz') return say(200, 'ok\n');
  if (token !== undefined && !isAuthorized(request, token))
    return say(401, 'The token is missing, or wrong.', TEXT, { 'www-authenticate': 'Basic realm="sqlsync"' });
  switch (url.pathname) {
    case '/':
      return say(200, renderPage(shown.status(), url.searchParams), HTML);
    case '/target':
      return answerTarget(url.searchParams.get('id') ?? '', shown);
    case '/style.css':
      return say(200, STYLE, 'text/css; charset=utf-8');
    case '/metrics':
      return say(200, renderMetrics(shown.status()), 'text/plain; version=0.0.4; charset=utf-8');
    case '/api/status':
      return say(200, JSON.stringify(shown.status()), 'application/json; charset=utf-8');
    default:
      return say(404, 'There is nothing here.');
  }
}

function answerTarget(id: string, shown: Shown): Answer {
  const status = shown.status();
  const target = status.targets.find((each) => each.id === id);
  if (target === undefined) return say(404, 'There is no such target.');
  return say(200, renderTargetPage(target, status, shown.report(id)), HTML);
}

function say(
  status: number,
  body: string,
  type: string = TEXT,
  headers: Readonly<Record<string, string>> = {},
): Answer {
  return { status, body, headers: { 'content-type': type, ...headers } };
}

/** The name in the Host header, without its port. */
function hostOf({ headers }: IncomingMessage): string {
  const [, bracketed, plain = ''] = /^(?:\[([^\]]*)\]|([^:]*))(?::\d+)?$/.exec(headers.host ?? '') ?? [];
  return bracketed ?? plain;
}

function isLoopback(host: string): boolean {
  return (
    host.toLowerCase() === 'localhost' || host === '::1' || (isIP(host) === 4 && host.startsWith('127.'))
  );
}

/** As `Authorization: Bearer TOKEN`, or as the password of any user, which browsers ask for. */
function isAuthorized({ headers }: IncomingMessage, token: string): boolean {
  const [, scheme = '', value = ''] = /^(\w+) +(\S+)$/.exec(headers.authorization ?? '') ?? [];
  const given =
    scheme.toLowerCase() === 'basic'
      ? Buffer.from(value, 'base64')
          .toString('utf8')
          .replace(/^[^:]*:/, '')
      : value;
  const digest = (text: string): Buffer => createHash('sha256').update(text).digest();
  return ['basic', 'bearer'].includes(scheme.toLowerCase()) && timingSafeEqual(digest(given), digest(token));
}
