import { statfsSync } from 'node:fs';
import { dirname } from 'node:path';
import type { ExclusiveLock } from '../../sqlite/locks/exclusive-lock.ts';
import { waitExclusiveLock, tryExclusiveLock } from '../../sqlite/locks/exclusive-lock.ts';
import { inodeAt } from '../../pages/database-file.ts';
import { besideReplica } from '../../beside/mark.ts';
import type { PageSize } from '../../pages/page-types.ts';
import { Spool } from './spool.ts';

/** When pages wait in the spool, even though a replica in WAL mode could take them at once. */
export type StagingRule = 'never' | 'large' | 'always';

/** 'large' means: from this many bytes of differing pages on. */
const STAGING_MIN_BYTES = Number(process.env['SQLSYNC_STAGING_MIN_BYTES'] ?? 8 * 1024 * 1024);

/**
 * The spool beside a replica and its lock, while one run works on that replica: over several snapshots, and with what
 * an interrupted run left.
 */
export class Staging {
  readonly rule: StagingRule;
  /** How often the run began again because the replica may have changed while the snapshot was on its way. */
  overtaken = 0;
  /** Another program keeps writing the replica, so a comparison only stays true under its write lock. */
  isContended = false;
  #path: string | undefined;
  /** The disk lacks room for the spool beside what its pages need at the commit. */
  #leavesNoRoom = false;
  #lock: ExclusiveLock | undefined;
  #spool: Spool | undefined;

  constructor(rule: StagingRule) {
    this.rule = rule;
  }

  /** Undefined until a page waits. */
  get spool(): Spool | undefined {
    return this.#spool;
  }

  /** True if pages should wait in the spool when this many are known to differ. */
  pays(knownPages: number, pageSize: number): boolean {
    if (this.#spool !== undefined || this.rule === 'always') return true;
    const bytes = knownPages * pageSize;
    if (this.rule === 'never' || this.#leavesNoRoom || bytes < STAGING_MIN_BYTES) return false;
    // Each page takes room once in the spool and once in the WAL.
    return 2 * bytes <= this.#freeBytes();
  }

  /**
   * Removes the spool after the commit found the disk full: otherwise every later run would fail there too. Returns
   * true if this run may continue without a spool.
   */
  giveWay(): boolean {
    this.remove();
    if (this.rule !== 'large' || this.#leavesNoRoom) return false;
    this.#leavesNoRoom = true;
    return true;
  }

  /** Takes up what an interrupted run left beside the replica at `path`, unless another run uses it. */
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
   * The spool to write to, after waiting for another run that uses it. Keeps what that run left in it. Throws BUSY, and
   * the system's errors.
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

  /** Removes the spool: its pages are in the replica, or are useless. Never throws: the next run removes what stays. */
  remove(): void {
    this.#removeSpool();
    this.#release();
  }

  /** Leaves what has arrived for the next run. Never throws. */
  close(): void {
    try {
      this.#spool?.close();
    } catch {
      // The run does not need it: the next run requests what it lacks.
    }
    this.#spool = undefined;
    this.#release();
  }

  /** Infinity if the system does not report it. */
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
      // The next run removes what stays.
    }
    this.#spool = undefined;
  }

  #release(): void {
    const lock = this.#lock;
    this.#lock = undefined;
    try {
      lock?.release();
    } catch {
      // The lock dies with this process.
    }
  }
}
