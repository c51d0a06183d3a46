import { statfsSync } from 'node:fs';
import { dirname } from 'node:path';
import type { ExclusiveLock } from '../../sqlite/locks/exclusive-lock.ts';
import { waitExclusiveLock, tryExclusiveLock } from '../../sqlite/locks/exclusive-lock.ts';
import { inodeAt } from '../../pages/database-file.ts';
import { besideReplica } from '../../beside/mark.ts';
import type { PageSize } from '../../pages/page-types.ts';
import { Spool } from './spool.ts';

/** When pages wait in the spool also where the replica, in WAL mode, could take them at once. */
export type StagingRule = 'never' | 'large' | 'always';

/** With 'large': from so many bytes of pages that differ on. */
const STAGING_MIN_BYTES = Number(process.env['SQLSYNC_STAGING_MIN_BYTES'] ?? 8 * 1024 * 1024);

/**
 * The spool beside a replica and its lock, for as long as one run works on that replica: over several snapshots, and
 * with what an interrupted run left.
 */
export class Staging {
  readonly rule: StagingRule;
  /** How often the run began again because the replica may have been changed while the snapshot was on its way. */
  overtaken = 0;
  /** Another program goes on writing the replica: only under its write lock does a comparison stay true. */
  isContended = false;
  #path: string | undefined;
  /** There is no room for the spool beside what its pages need at the commit. */
  #leavesNoRoom = false;
  #lock: ExclusiveLock | undefined;
  #spool: Spool | undefined;

  constructor(rule: StagingRule) {
    this.rule = rule;
  }

  /** Undefined where no page waits and none has waited. */
  get spool(): Spool | undefined {
    return this.#spool;
  }

  /** Whether pages are to wait where so many are known to differ. */
  pays(knownPages: number, pageSize: number): boolean {
    if (this.#spool !== undefined || this.rule === 'always') return true;
    const bytes = knownPages * pageSize;
    if (this.rule === 'never' || this.#leavesNoRoom || bytes < STAGING_MIN_BYTES) return false;
    // Once in the spool and once in the WAL.
    return 2 * bytes <= this.#freeBytes();
  }

  /**
   * The commit found the disk full: removes the spool, which would make every later run fail there too. True where this
   * run may do without it.
   */
  giveWay(): boolean {
    this.remove();
    if (this.rule !== 'large' || this.#leavesNoRoom) return false;
    this.#leavesNoRoom = true;
    return true;
  }

  /** Takes up what an interrupted run left beside the replica at `path`, unless another one works with it just now. */
  async resume(path: string): Promise<void> {
    if (this.#path !== undefined && this.#path !== path) this.remove();
    this.#path = path;
    const identity = inodeAt(path);
    if (this.#spool !== undefined || identity === undefined || !Spool.isThere(besideReplica(path, '-spool')))
      return;
    this.#lock ??= tryExclusiveLock(besideReplica(path, '-lock'));
    if (this.#lock === undefined) return;
    this.#spool = await Spool.resume(besideReplica(path, '-spool'), identity);
    if (this.#spool?.held.isEmpty === true) this.#removeSpool();
    if (this.#spool === undefined) this.#release();
  }

  /**
   * The spool to write to, after a wait for whoever uses it. What another run left in it meanwhile is kept.
   * Throws BUSY, and the system's errors.
   */
  async open(
    pageSize: PageSize,
    options: { readonly timeoutMs: number; readonly signal?: AbortSignal | undefined },
  ): Promise<Spool> {
    if (this.#spool !== undefined) return this.#spool;
    const path = this.#path;
    const identity = path === undefined ? undefined : inodeAt(path);
    if (path === undefined || identity === undefined) throw new Error('there is no replica beside the spool');
    this.#lock ??= await waitExclusiveLock(besideReplica(path, '-lock'), `Replica ${path}`, options);
    const spoolPath = besideReplica(path, '-spool');
    const left = await Spool.resume(spoolPath, identity);
    if (left?.pageSize === pageSize) this.#spool = left;
    else {
      left?.remove();
      this.#spool = Spool.create(spoolPath, identity, pageSize);
    }
    return this.#spool;
  }

  /** The pages are in the replica, or of no use any more. Never throws: what stays is removed by the next run. */
  remove(): void {
    this.#removeSpool();
    this.#release();
  }

  /** Leaves what has arrived for the next run. Never throws. */
  close(): void {
    try {
      this.#spool?.close();
    } catch {
      // It is not needed: what it lacks will be asked for again.
    }
    this.#spool = undefined;
    this.#release();
  }

  /** Infinity where the system does not tell. */
  #freeBytes(): number {
    try {
      const { bavail, bsize } = statfsSync(dirname(this.#path ?? '.'));
      return bavail * bsize;
    } catch {
      return Infinity;
    }
  }

  #removeSpool(): void {
    try {
      this.#spool?.remove();
    } catch {
      // See above.
    }
    this.#spool = undefined;
  }

  #release(): void {
    const lock = this.#lock;
    this.#lock = undefined;
    try {
      lock?.release();
    } catch {
      // It dies with this process.
    }
  }
}
