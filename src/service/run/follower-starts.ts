import { setTimeout as delay } from 'node:timers/promises';

/** The time between two starts of followers, in milliseconds: each is a process, and a login at its host. */
const START_INTERVAL_MS = 50;

/** Lets followers start one after another: a thousand at once are more than a host's sshd lets in. */
export class FollowerStarts {
  #nextAt = 0;

  /** Resolves when a follower may start, or when `signal` aborts. Never rejects. */
  async turn(signal: AbortSignal): Promise<void> {
    const now = performance.now();
    const at = Math.max(now, this.#nextAt);
    this.#nextAt = at + START_INTERVAL_MS;
    if (at > now) await delay(at - now, undefined, { signal }).catch(() => {});
  }
}
