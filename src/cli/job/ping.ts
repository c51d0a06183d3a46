import { setTimeout as delay } from 'node:timers/promises';
import { SqlsyncError } from '../../errors.ts';
import { VERSION } from '../../sync/program.ts';

/** What is told to a service that watches over jobs, in the manner of healthchecks.io. */
export type PingEvent = 'start' | 'success' | 'fail';

/** So long an attempt may take, and so long is the pause before a second one, in milliseconds. */
const TIMEOUT_MS = 5000;
const PAUSE_MS = 500;

/** Throws SqlsyncError USAGE. */
export function parsePingUrl(text: string): URL {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  const isWeb = url?.protocol === 'http:' || url?.protocol === 'https:';
  if (url !== undefined && isWeb && isDecodable(url.username + url.password)) return url;
  // Not with what was given: it may be a secret.
  throw new SqlsyncError('USAGE', '--ping: expected a URL that begins with http:// or https://', {
    hint: 'Give the address of the check, such as https://hc-ping.com/UUID; /start and /fail are added to it.',
  });
}

function isDecodable(text: string): boolean {
  try {
    decodeURIComponent(text);
    return true;
  } catch {
    return false;
  }
}

/**
 * Tells `event` with the text `body`: POST to the URL itself for success, to URL/start and URL/fail for the others. A
 * service that refuses the connection or has trouble of its own is asked a second time, so that no alarm is raised for
 * nothing. Resolves to what went wrong (without the path of the URL, which is a secret), or undefined; never rejects.
 */
export async function ping(
  url: URL,
  event: PingEvent,
  body: string,
  timeoutMs: number = TIMEOUT_MS,
): Promise<string | undefined> {
  let outcome = await post(url, event, body, timeoutMs);
  if (outcome?.mayPass === true) {
    await delay(PAUSE_MS);
    outcome = await post(url, event, body, timeoutMs);
  }
  return outcome === undefined ? undefined : `${url.origin} was not told of the ${event}: ${outcome.failure}`;
}

async function post(
  url: URL,
  event: PingEvent,
  body: string,
  timeoutMs: number,
): Promise<{ failure: string; mayPass: boolean } | undefined> {
  const headers: Record<string, string> = {
    'content-type': 'text/plain; charset=utf-8',
    'user-agent': `sqlsync/${VERSION}`,
  };
  if (url.username !== '' || url.password !== '') {
    const login = `${decodeURIComponent(url.username)}:${decodeURIComponent(url.password)}`;
    headers['authorization'] = `Basic ${Buffer.from(login).toString('base64')}`;
  }
  try {
    const signal = AbortSignal.timeout(timeoutMs);
    const response = await fetch(addressOf(url, event), { method: 'POST', headers, body, signal });
    await response.body?.cancel();
    if (response.ok) return undefined;
    const { status } = response;
    return { failure: `status ${status}`, mayPass: status >= 500 || status === 429 };
  } catch (error) {
    const isSilent = error instanceof Error && error.name === 'TimeoutError';
    if (isSilent) return { failure: `no answer within ${timeoutMs / 1000} s`, mayPass: false };
    return { failure: reasonOf(error), mayPass: true };
  }
}

/** The path of the event goes before the query. Fetch takes no login in the URL. */
function addressOf(url: URL, event: PingEvent): URL {
  const address = new URL(url);
  address.username = '';
  address.password = '';
  address.hash = '';
  if (event !== 'success') address.pathname = `${address.pathname.replace(/\/$/, '')}/${event}`;
  return address;
}

/** fetch says only that it failed; its cause says why. */
function reasonOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  if (!(error.cause instanceof Error)) return error.message;
  // Of several addresses none answered: the error has no message of its own.
  const { message } = error.cause;
  return message === '' && 'code' in error.cause ? String(error.cause.code) : message;
}
