import { request as httpRequest } from 'node:http';
import type { ClientRequest } from 'node:http';
import { Agent, request as httpsRequest } from 'node:https';
import type { AgentOptions } from 'node:https';
import type { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { connect } from 'node:tls';
import type { ConnectionOptions } from 'node:tls';
import { SqlsyncError } from '../../../errors.ts';

/** The time to get through a proxy. */
const CONNECT_TIMEOUT_MS = 20_000;

/**
 * The proxy that the environment names for an https: host: HTTPS_PROXY or ALL_PROXY, in either case, unless NO_PROXY
 * names the host. Throws SqlsyncError USAGE for one that is no http: or https: address.
 */
export function proxyFor(hostname: string, port: number, env: NodeJS.ProcessEnv): URL | undefined {
  const value = (name: string): string => env[name] || env[name.toUpperCase()] || '';
  const given = value('https_proxy') || value('all_proxy');
  if (given === '' || isExempt(hostname, port, value('no_proxy'))) return undefined;
  try {
    const proxy = new URL(given.includes('://') ? given : `http://${given}`);
    if (/^https?:$/.test(proxy.protocol)) return proxy;
  } catch {
    // Not shown: it may hold a password.
  }
  throw new SqlsyncError('USAGE', 'The proxy in HTTPS_PROXY or ALL_PROXY is no http: or https: address', {
    hint: 'Write http://HOST:PORT, or exempt the host of the store by NO_PROXY.',
  });
}

/** `*`, names with everything below them, and `host:port`, divided by commas, as curl reads it. */
function isExempt(hostname: string, port: number, list: string): boolean {
  return list
    .split(/[\s,]+/)
    .filter((entry) => entry !== '')
    .some((entry) => {
      if (entry === '*') return true;
      const [, name = '', only] = /^(.*?)(?::(\d+))?$/.exec(entry.replaceAll(/[[\]]/g, '')) ?? [];
      const domain = (hostname.includes(':') ? entry.replaceAll(/[[\]]/g, '') : name)
        .replace(/^\*?\./, '')
        .toLowerCase();
      const isHere = hostname.toLowerCase() === domain || hostname.toLowerCase().endsWith(`.${domain}`);
      return isHere && (only === undefined || hostname.includes(':') || Number(only) === port);
    });
}

/** Text in which a `%` may stand for itself. */
function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

/** Connections through a proxy, which only sees the name of the host and sealed bytes. */
export class TunnelAgent extends Agent {
  readonly #proxy: URL;

  constructor(proxy: URL, options: AgentOptions) {
    super(options);
    this.#proxy = proxy;
  }

  override createConnection(
    options: ConnectionOptions & { host?: string },
    callback?: (error: Error | null, socket: Duplex) => void,
  ): undefined {
    const host = options.host ?? '';
    const done = callback as (error: Error | null, socket?: Duplex) => void;
    const target = `${host.includes(':') ? `[${host}]` : host}:${options.port ?? 443}`;
    const asking = this.#ask(target);
    asking.on('connect', ({ statusCode = 0 }, socket: Socket) => {
      socket.setTimeout(0);
      if (statusCode === 200) return done(null, connect({ ...options, socket }));
      socket.destroy();
      done(this.#error(`answered ${statusCode}`, 'PROXY_REFUSED'));
    });
    asking.on('timeout', () => asking.destroy(this.#error('does not answer', 'ETIMEDOUT')));
    asking.on('error', done);
    asking.end();
    return undefined;
  }

  #ask(target: string): ClientRequest {
    const { protocol, hostname, port, username, password } = this.#proxy;
    const login = `${decoded(username)}:${decoded(password)}`;
    const headers: Record<string, string> = { host: target };
    if (login !== ':') headers['proxy-authorization'] = `Basic ${Buffer.from(login).toString('base64')}`;
    const isTls = protocol === 'https:';
    return (isTls ? httpsRequest : httpRequest)({
      host: hostname.replaceAll(/[[\]]/g, ''),
      port: port || (isTls ? 443 : 80),
      method: 'CONNECT',
      path: target,
      headers,
      agent: false,
      timeout: CONNECT_TIMEOUT_MS,
      ...(isTls ? { ca: this.options.ca, rejectUnauthorized: true } : {}),
    });
  }

  #error(what: string, code: string): Error {
    return Object.assign(new Error(`the proxy ${this.#proxy.host} ${what}`), { code });
  }
}
