import { randomBytes } from 'node:crypto';
import { resolve } from 'node:path';
import type { Writable } from 'node:stream';
import { HASH_KEY_BYTES } from '../../pages/hash.ts';
import { lockBytePage } from '../../pages/page-types.ts';
import type { PageSize } from '../../pages/page-types.ts';
import { parseLocation } from '../../transport/location.ts';
import type { Location } from '../../transport/location.ts';
import { announcementOf, openSnapshot } from '../agents/origin-snapshot.ts';
import { openRequest, runCopy } from '../agents/replica-agent.ts';
import type { CopyOptions } from '../agents/replica-options.ts';
import { Announcements } from '../request/announcements.ts';
import { copyRequest } from '../request/copy-request.ts';
import type { CopyRequestOptions } from '../request/copy-request.ts';
import { PageStream } from '../stream/page-stream.ts';
import { StreamDestination } from '../stream/stream-destination.ts';
import { streamSource } from '../stream/stream-source.ts';
import { mayWorkHere } from './agent-here.ts';
import { converse } from './conversation.ts';
import type { Traffic } from './conversation.ts';
import type { CopyRunOptions } from './run-options.ts';
import type { SyncSummary } from './sync.ts';

export interface StreamOptions
  extends CopyRunOptions, Pick<CopyRequestOptions, 'hash' | 'reader' | 'busyTimeoutMs'> {
  /** Path, `[user@]host:path` or `ssh://…` of the database to copy. */
  readonly origin: string;
  /** What gets the database: its pages from first to last. It is not ended. */
  readonly output: Writable;
}

type Shape = Pick<SyncSummary, 'pageSize' | 'pageCount' | 'snapshotHeldMs' | 'walGrowthBytes'>;

/**
 * Writes one snapshot of `origin` to a stream, as the file that a copy of it would be. Resolves when the stream has
 * taken all of it, and it has the hash of the snapshot. Throws SqlsyncError: what was written is then worthless.
 *
 * The snapshot is held until the reader has taken everything. Opens a local database in this process: see `runSync`.
 */
export async function runStream(options: StreamOptions): Promise<SyncSummary> {
  const startedAt = performance.now();
  const origin = parseLocation(options.origin);
  const announcements = new Announcements(options);
  const traffic = { bytesSent: 0, bytesReceived: 0 };
  const stream = new PageStream(options.output, options.signal);
  const copy = copyOptions(options, origin, announcements);
  const isHere = origin.kind === 'local' && options.bandwidthBytesPerS === undefined && mayWorkHere();
  const shape = isHere
    ? await streamHere(copy, stream)
    : await streamFrom(origin, stream, { options, copy, announcements, traffic });
  const pages =
    shape.pageCount < lockBytePage(shape.pageSize as PageSize) ? shape.pageCount : shape.pageCount - 1;
  return {
    origin: options.origin,
    replica: '-',
    outcome: 'committed',
    ...shape,
    pagesCompared: 0,
    pagesChanged: pages,
    pagesTransferred: pages,
    pagesDelta: 0,
    ...traffic,
    durationMs: Math.round(performance.now() - startedAt),
    attempts: 1,
    rounds: 1,
    created: true,
    resumed: false,
    quick: false,
    warnings: announcements.warnings,
    findings: [],
  };
}

function copyOptions(options: StreamOptions, origin: Location, announcements: Announcements): CopyOptions {
  return {
    ...copyRequest({ ...options, compression: options.compress }),
    originPath: origin.kind === 'local' ? resolve(origin.path) : origin.path,
    signal: options.signal,
    onSnapshot: (snapshot) => announcements.snapshot(snapshot),
    ...(options.onProgress === undefined ? {} : { onProgress: options.onProgress }),
  };
}

/** The near process reads the origin itself. */
async function streamHere(copy: CopyOptions, stream: PageStream): Promise<Shape> {
  const limits = { idleTimeoutMs: 0, maxTimeMs: 0 };
  const request = openRequest(new StreamDestination(stream), randomBytes(HASH_KEY_BYTES), copy, limits);
  const opened = await openSnapshot(request, copy.reader, { signal: copy.signal });
  const { snapshot } = opened;
  try {
    copy.onSnapshot?.(announcementOf(opened, 0));
    await streamSource(snapshot, stream, copy.onProgress);
    snapshot.checkUnreplaced();
    const { pageSize, pageCount, walGrowthBytes } = snapshot;
    return { pageSize, pageCount, walGrowthBytes, snapshotHeldMs: Math.round(snapshot.heldMs) };
  } finally {
    snapshot.close();
  }
}

/** An agent reads the origin. */
function streamFrom(
  origin: Location,
  stream: PageStream,
  run: {
    readonly options: StreamOptions;
    readonly copy: CopyOptions;
    readonly announcements: Announcements;
    readonly traffic: Traffic;
  },
): Promise<Shape> {
  const { options, copy, announcements, traffic } = run;
  const onWarning = (text: string): void => announcements.warn(text);
  return converse(origin, 'opening', { run: options, traffic, onWarning }, async (connection) => {
    const result = await runCopy(connection, copy, () => new StreamDestination(stream));
    const { done, snapshotHeldMs, walGrowthBytes } = result;
    for (const warning of done.warnings) announcements.warn(warning);
    return { pageSize: done.pageSize, pageCount: done.pageCount, snapshotHeldMs, walGrowthBytes };
  });
}
