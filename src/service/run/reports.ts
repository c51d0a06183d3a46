import { setTimeout as delay } from 'node:timers/promises';
import { toSqlsyncError } from '../../errors.ts';
import { ping } from '../../cli/job/ping.ts';
import type { PingEvent } from '../../cli/job/ping.ts';
import type { Job } from '../jobs/job.ts';
import { runHook } from '../jobs/run-job.ts';
import { withoutSecrets } from '../state/state.ts';
import type { Failure } from '../state/state.ts';

/** How many reports are under way at a time. */
const AT_A_TIME = 8;

/** More than so many that wait are not made: their monitor has been away for long. */
const MAX_WAITING = 10_000;

/** How long a hook may tell of a failure, in milliseconds. */
const HOOK_LIMIT_MS = 60_000;

/** How long the end of the service waits for reports, in milliseconds. */
const END_GRACE_MS = 5000;

interface Report {
  readonly id: string;
  readonly make: (signal: AbortSignal) => Promise<void>;
}

/**
 * Tells others of copies, beside the copies themselves: a monitor that does not answer makes none of them late. The
 * reports of one job are made one after another.
 */
export class Reports {
  readonly #onWarning: (text: string) => void;
  readonly #end = new AbortController();
  readonly #underWay = new Map<string, Promise<void>>();
  #waiting: Report[] = [];

  constructor(onWarning: (text: string) => void) {
    this.#onWarning = onWarning;
  }

  ping({ id, target }: Job, event: PingEvent, body: string): void {
    const { pingUrl } = target;
    if (pingUrl === undefined) return;
    this.#add(id, async (end) => {
      const failure = await ping(new URL(pingUrl), event, body, undefined, end);
      if (failure !== undefined) this.#warn(failure);
    });
  }

  /** By ping, and by the hook for it. */
  failure(job: Job, { code, message }: Failure): void {
    this.ping(job, 'fail', message);
    if (job.target.hooks.failure === undefined) return;
    const more = { SQLSYNC_CODE: code, SQLSYNC_MESSAGE: message };
    this.#add(job.id, (end) =>
      runHook(job, 'failure', more, AbortSignal.any([end, AbortSignal.timeout(HOOK_LIMIT_MS)])),
    );
  }

  /** Lets what waits be made for some seconds, and then gives it up. */
  async end(): Promise<void> {
    const limit = new AbortController();
    const timer = delay(END_GRACE_MS, undefined, { signal: limit.signal }).catch(() => {});
    await Promise.race([timer, this.#rest()]);
    limit.abort();
    this.#waiting = [];
    this.#end.abort();
    await this.#rest();
  }

  async #rest(): Promise<void> {
    while (this.#underWay.size > 0) await Promise.all(this.#underWay.values());
  }

  #add(id: string, make: Report['make']): void {
    if (this.#waiting.length >= MAX_WAITING || this.#end.signal.aborted) return;
    this.#waiting.push({ id, make });
    this.#begin();
  }

  #begin(): void {
    while (this.#underWay.size < AT_A_TIME) {
      const at = this.#waiting.findIndex(({ id }) => !this.#underWay.has(id));
      const [report] = at === -1 ? [] : this.#waiting.splice(at, 1);
      if (report === undefined) return;
      this.#underWay.set(report.id, this.#make(report));
    }
  }

  async #make({ id, make }: Report): Promise<void> {
    try {
      await make(this.#end.signal);
    } catch (error) {
      this.#warn(toSqlsyncError(error).message);
    }
    this.#underWay.delete(id);
    this.#begin();
  }

  #warn(text: string): void {
    this.#onWarning(withoutSecrets(text));
  }
}
