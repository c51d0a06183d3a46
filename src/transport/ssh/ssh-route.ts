import { SqlsyncError, sanitizeText } from '../../errors.ts';
import { resolveHost } from './ssh-config.ts';
import type { HostConfig, HostRequest } from './ssh-config.ts';

/** More jump hosts than anyone uses; ends a loop of hosts that name each other. */
const MAX_HOPS = 8;

/**
 * The hosts to log in to, one through the other; the last one is the requested host. As in OpenSSH (`ssh -J a,b c` runs
 * `ssh -J a b`, which runs `ssh a`), only the first jump host may have jump hosts of its own, and `port` and `user`
 * belong to the last host.
 *
 * @throws {SqlsyncError} USAGE if a jump host cannot be parsed, else as `resolveHost`.
 */
export async function resolveRoute(request: HostRequest, signal?: AbortSignal): Promise<HostConfig[]> {
  const route: HostConfig[] = [];
  let next: HostRequest | undefined = request;
  while (next !== undefined) {
    if (route.length > MAX_HOPS) {
      throw new SqlsyncError(
        'CONNECT_FAILED',
        `the way to ${sanitizeText(request.host, 200)} goes over more than ${MAX_HOPS} jump hosts; expected fewer`,
        { hint: 'Check ProxyJump in your SSH configuration for a loop.' },
      );
    }
    const config: HostConfig = await resolveHost(next, signal);
    route.unshift(config);
    next = config.jump === undefined ? undefined : nearestJump(config.jump, request.configFile);
  }
  return route;
}

/** The last of the jump hosts, reached through those before it. */
function nearestJump(jump: string, configFile: string | undefined): HostRequest {
  const hops = jump.split(',');
  const last = parseJumpHost(hops.pop() ?? '', jump);
  return { ...last, configFile, jump: hops.length === 0 ? undefined : withoutTokens(hops.join(',')) };
}

/** The tokens of the last host were already expanded, for all of its jump hosts. */
function withoutTokens(jump: string): string {
  return jump.replaceAll('%', '%%');
}

/** `[user@]host[:port]`, `[user@][address]:port` or `ssh://` before it. Throws SqlsyncError USAGE. */
export function parseJumpHost(text: string, whole: string): { host: string; port?: number; user?: string } {
  const plain = text.trim().replace(/^ssh:\/\//i, '');
  const [, user, bracketed, name, digits] =
    /^(?:(.+)@)?(?:\[([^\]]+)\]|([^:@[\]]+))(?::(\d+))?$/.exec(plain) ?? [];
  const host = bracketed ?? name;
  const port = digits === undefined ? undefined : Number(digits);
  const unsafe = [host, user].some((part) => part !== undefined && (part.startsWith('-') || /\s/.test(part)));
  if (host === undefined || unsafe || (port !== undefined && (port < 1 || port > 65535))) {
    throw new SqlsyncError(
      'USAGE',
      `the jump hosts "${sanitizeText(whole, 200)}" are not [user@]host[:port], separated by commas`,
      { hint: 'Check -J, or ProxyJump in your SSH configuration.' },
    );
  }
  return { host, ...(port === undefined ? {} : { port }), ...(user === undefined ? {} : { user }) };
}
