import { SqlsyncError } from '../../errors.ts';
import { DatabaseSnapshot } from '../../origin/snapshot.ts';
import { runVerify } from '../../sync/runs/verify.ts';
import type { VerifyOptions } from '../../sync/runs/verify.ts';
import { parseLocation } from '../../transport/location.ts';
import { drawMap, MAX_MAP_PAGES } from '../page-map.ts';
import { ownersOf, sizesOf } from '../page-owners.ts';
import type { PageOwners } from '../page-owners.ts';
import { growthOf } from '../report.ts';
import type { DatabaseReport } from '../report.ts';
import { whyUnmeasured } from './store-report.ts';

/** Compares two databases, here or on other hosts, as `sqlsync verify` does. Throws SqlsyncError as that does. */
export async function reportPair(options: VerifyOptions): Promise<DatabaseReport> {
  const summary = await runVerify(options);
  const remarks = new Set<string>();
  const sides = [summary.a, summary.b].map(({ location }) => location);
  const measured: { readonly location: string; readonly owners: PageOwners; readonly pageSize: number }[] =
    [];
  for (const location of sides) {
    const found = await measure(location, options, remarks);
    if (found !== undefined) measured.push({ location, ...found });
  }
  const { a, b, differingPages, differingRangeCount } = summary;
  const pageCount = Math.max(a.pageCount, b.pageCount);
  const isDrawn = a.pageSize === b.pageSize && pageCount <= MAX_MAP_PAGES;
  if (!isDrawn)
    remarks.add(
      a.pageSize === b.pageSize
        ? 'There is no map of its pages: the database is too large.'
        : `There is no map of its pages: they have ${a.pageSize} and ${b.pageSize} bytes.`,
    );
  if (differingRangeCount > differingPages.length)
    remarks.add(
      `The map shows the first ${differingPages.length} of ${differingRangeCount} ranges of pages.`,
    );
  const owners = measured.map((each) => each.owners).toReversed();
  return {
    name: `${a.location} and ${b.location}`,
    host: undefined,
    moments: [],
    omitted: 0,
    growth:
      measured.length === 0
        ? undefined
        : growthOf(
            measured.map(({ location }) => location),
            measured.map((each) => sizesOf(each.owners, each.pageSize)),
          ),
    map: isDrawn
      ? drawMap({
          from: a.location,
          to: b.location,
          pageSize: b.pageSize,
          pageCount,
          differing: differingPages,
          owners,
        })
      : undefined,
    remarks: [...remarks],
  };
}

/** The owners of the pages of a database on this host, in a snapshot of its own; undefined for one on another. */
async function measure(
  text: string,
  { busyTimeoutMs = 10_000, signal }: VerifyOptions,
  remarks: Set<string>,
): Promise<{ readonly owners: PageOwners; readonly pageSize: number } | undefined> {
  const location = parseLocation(text);
  if (location.kind !== 'local') {
    remarks.add(`The tables of ${text} are not measured: it is on another host.`);
    return undefined;
  }
  const snapshot = await DatabaseSnapshot.open(location.path, { busyTimeoutMs, signal });
  try {
    const { pageCount, pageSize } = snapshot;
    if (pageCount > MAX_MAP_PAGES) return undefined;
    return { owners: ownersOf(pageCount, snapshot.pageOwners()), pageSize };
  } catch (error) {
    const why = error instanceof SqlsyncError ? undefined : whyUnmeasured(error);
    if (why === undefined) throw error;
    remarks.add(`The tables of ${text} could not be measured: ${why}`);
    return undefined;
  } finally {
    snapshot.close();
  }
}
