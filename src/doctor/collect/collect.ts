import { statSync } from 'node:fs';
import { hostname } from 'node:os';
import { mountOf } from '../../files/mounts.ts';
import type { Facts } from '../facts.ts';
import { existing, refusal } from './existing.ts';
import { databaseFacts, headerFacts, unreadableBeside } from './files.ts';
import { healthFacts } from './health.ts';
import { lookSeveralTimes } from './looks.ts';
import { poolFacts } from './pools.ts';
import { confirmed, processFacts, processesWith } from './processes.ts';
import { sightOn } from './sight.ts';
import { isFileWhole, journalFacts } from './still.ts';
import { walFacts } from './wal.ts';

export interface CollectOptions {
  /** True for a peer that may only see what is about the database: no command lines, users, containers or labels. */
  readonly isRestricted?: boolean | undefined;
  /** How often to look at the locks; by default 6 times in 300 ms. A given number leaves out the health of the file. */
  readonly looks?: number | undefined;
}

/** File systems that give the same inode to files of several subvolumes, which the kernel's list of locks mixes up. */
const SUBVOLUMES = /^(?:btrfs|bcachefs)$/;

/**
 * Looks at the database at `path`. It takes no lock, opens no connection and writes nothing. Only for a process that
 * has no connection to this database: closing a file drops the locks that its process holds on it. Throws SqlsyncError
 * ORIGIN_*.
 */
export async function collectFacts(path: string, options: CollectOptions = {}): Promise<Facts> {
  const real = existing(path);
  const { isRestricted = false, looks } = options;
  const startedAt = process.cpuUsage();
  try {
    const first = processesWith(real);
    const seen = await lookSeveralTimes(real, () => first.open.keys(), looks);
    // A lock of another machine has no process here, and a number below 1.
    const listed = seen.locks.filter(({ pid }) => pid > 0 && pid !== process.pid);
    const pids = [...new Set([...first.open.keys(), ...listed.map(({ pid }) => pid)])].sort((a, b) => a - b);
    const found = confirmed(first, processesWith(real, pids));
    const isOfSubvolume = SUBVOLUMES.test(mountOf(real)?.type ?? '');
    const mayHold = (pid: number): boolean =>
      !isOfSubvolume || found.hidden.has(pid) || found.open.has(pid) || first.open.has(pid);
    const locks = listed.filter(({ pid }) => mayHold(pid));
    const isInUse = locks.some(({ name }) => name === 'ATTACHED');
    const header = headerFacts(real);
    const wal = walFacts(real, { isInUse, first: seen.firstWal, last: seen.lastWal });
    const journal = await journalFacts(real);
    // A watch asks again and again, and shows no health.
    const isWatch = looks !== undefined;
    const isStill = (): boolean => isFileWhole(real);
    const { sight, limits } = sightOn(real);
    return {
      path: real,
      host: hostname(),
      database: databaseFacts(real, statSync(real)),
      ...(header === undefined ? {} : { header }),
      wal,
      ...(journal === undefined ? {} : { journal }),
      processes: pids
        .filter((pid) => found.open.has(pid) || locks.some((lock) => lock.pid === pid))
        .map((pid) => processFacts(pid, found, { path: real, isNapping: seen.isNapping(pid), isRestricted })),
      locks,
      // A restricted peer gets no names that an application gave.
      pools: isWatch || isRestricted ? [] : await poolFacts(real),
      lookedForMs: seen.lookedForMs,
      busyMs: busySince(startedAt),
      health: header === undefined || isWatch ? { problems: [] } : healthFacts(real, header, isStill),
      sight,
      unseen: [...limits, ...unseenOf(real, first.hidden.size, isRestricted)],
    };
  } catch (error) {
    throw refusal(path, error);
  }
}

/** The processor time of this process since then, in milliseconds. */
function busySince(startedAt: NodeJS.CpuUsage): number {
  const { user, system } = process.cpuUsage(startedAt);
  return Math.round((user + system) / 1000);
}

function unseenOf(path: string, hidden: number, isRestricted: boolean): string[] {
  const unseen: string[] = [];
  if (hidden > 0)
    unseen.push(
      `${hidden} processes whose open files this user may not see may have the database open (run doctor as root). Their locks are shown.`,
    );
  const names = unreadableBeside(path);
  if (names.length > 0)
    unseen.push(`This user may not read the ${names.join(' and the ')}: what is in it was not looked at.`);
  if (isRestricted)
    unseen.push(
      'Command lines, users and containers of processes are withheld: this key is restricted to databases.',
    );
  return unseen;
}
