/** Requests to stores of this process, as their services bill them. */
export interface RequestCounts {
  /** GET. */
  reads: number;
  /** PUT and LIST, which cost about ten times as much as reads. */
  writes: number;
  /** DELETE, which AWS does not bill. */
  deletes: number;
  /** Bytes of bodies, in both directions. */
  bytesRead: number;
  bytesWritten: number;
}

export function noRequests(): RequestCounts {
  return { reads: 0, writes: 0, deletes: 0, bytesRead: 0, bytesWritten: 0 };
}

/** All requests that this thread sent, and that other threads reported to it. Repeated ones count again. */
export const requestCounts: RequestCounts = noRequests();

export function addRequests(counts: RequestCounts): void {
  for (const field of Object.keys(counts) as (keyof RequestCounts)[]) requestCounts[field] += counts[field];
}
