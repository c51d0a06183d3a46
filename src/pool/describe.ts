import type { PoolFacts, PoolWork } from '../doctor/facts.ts';
import type { Activity, DatabaseStats } from './types.ts';

const MAX_LABEL_LENGTH = 80;
const MAX_LISTED = 5;

/** What this process does with a database through its pools, for `sqlsync doctor` of those who may write the database. */
export function describePools(write: DatabaseStats['write'], read: DatabaseStats['read']): string {
  const facts: PoolFacts = {
    pid: process.pid,
    ...(write.holder === undefined ? {} : { writer: workOf(write.holder) }),
    waitingCount: write.queueLength,
    waiting: write.waiting.slice(0, MAX_LISTED).map(workOf),
    readers: read.holders.slice(0, MAX_LISTED).map(workOf),
  };
  return JSON.stringify(facts);
}

function workOf({ label, forMs }: Activity): PoolWork {
  return { label: label.slice(0, MAX_LABEL_LENGTH), forMs: Math.round(forMs) };
}
