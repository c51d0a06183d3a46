import { setTimeout as delay } from 'node:timers/promises';
import { SqlsyncError } from '../../errors.ts';
import { VERSION } from '../../sync/program.ts';

/** An event for a service that watches jobs, in the manner of healthchecks.io. */
export type PingEvent = 'start' | 'success' | 'fail';

/** The limit for an attempt, and the pause before the second one, in milliseconds. */
const TIMEOUT_MS = 5000;
const PAUSE_MS = 500;

/** Throws SqlsyncError USAGE. */
export function parsePingUrl(text: string): URL {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  const isWeb = url?.protocol === 'http:' || url?.protocol === 'https:';
  if (url !== undefined && isWeb && isDecodable(url.username + url.password)) return url;
  // Does not show the given text: it may be a secret.
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
 * Reports `event` with the text `body`: POST to the URL itself for success, to URL/start and URL/fail for the others.
 * Tries a second time if the service refuses the connection or has an error of its own, to avoid false alarms. Resolves
 * to the error (without the path of the URL, which is a secret), or undefined; never rejects. `end` gives it up.
 */
export async function ping(
  url: URL,
  event: PingEvent,
  body: string,
  timeoutMs: number = TIMEOUT_MS,
  end?: AbortSignal,
): Promise<string | undefined> {
  let outcome = await post(url, event, body, timeoutMs, end);
  if (outcome?.mayPass === true && end?.aborted !== true) {
    await delay(PAUSE_MS);
    outcome = await post(url, event, body, timeoutMs, end);
  }
  return outcome === undefined
    ? undefined
    : `${url.origin} did not get the report of the ${event}: ${outcome.failure}`;
}

async function post(
  url: URL,
  event: PingEvent,
  body: string,
  timeoutMs: number,
  end: AbortSignal | undefined,
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
    const limit = AbortSignal.timeout(timeoutMs);
    const signal = end === undefined ? limit : AbortSignal.any([limit, end]);
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

/** The path of the event goes before the query. Fetch accepts no login in the URL. */
function addressOf(url: URL, event: PingEvent): URL {
  const address = new URL(url);
  address.username = '';
  address.password = '';
  address.hash = '';
  if (event !== 'success') address.pathname = `${address.pathname.replace(/\/$/, '')}/${event}`;
  return address;
}

/** fetch only says that it failed; its cause says why. */
function reasonOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  if (!(error.cause instanceof Error)) return error.message;
  // If none of several addresses answered, the error itself has no message.
  const { message } = error.cause;
  return message === '' && 'code' in error.cause ? String(error.cause.code) : message;
}
