import { SqlsyncError } from '../../errors.ts';

/**
 * The root hashes differ although every page was checked: a difference hid behind an equal hash prefix (2^-40), a
 * cached hash was wrong, or a page was damaged in memory. A new attempt has a new key.
 */
export class RootMismatchError extends SqlsyncError {
  constructor() {
    super('ROOT_MISMATCH', 'The copy does not have the root hash of the origin', {
      hint: 'Nothing was changed. Run sqlsync again. If it happens again, check the memory and disks of both machines.',
    });
  }
}

/** A page has another hash than the origin announced: a cached hash of it was wrong, or the page was damaged. */
export class PageMismatchError extends SqlsyncError {
  constructor(page: number) {
    super('ROOT_MISMATCH', `Page ${page} arrived with another hash than the origin announced`, {
      hint: 'Nothing was changed. If it happens again, check the memory of both machines.',
    });
  }
}
