/** The count of commits in a wal-index, and the file that has it. */
export interface CommitCount {
  readonly commits: number;
  /** Differs from that of another -shm. */
  readonly index: string;
}

const MOST = 2 ** 31;

/**
 * How many commits came between two looks at the wal-index. The count has 32 bits, and begins at 0 with each new index:
 * when the last connection is closed, SQLite deletes it. Commits of an index that no look saw are missed.
 */
export function commitsBetween(before: CommitCount, now: CommitCount): number {
  const difference = (now.commits - before.commits) >>> 0;
  return before.index === now.index && difference < MOST ? difference : now.commits;
}
