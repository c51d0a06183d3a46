import { message } from '../../../protocol/encode.ts';
import { COMPRESSION_MODES, HASH_ALGORITHMS, READERS } from '../../../protocol/messages.ts';
import type { HashAlgorithm, MessageOf } from '../../../protocol/messages.ts';
import { NO_SNAPSHOT_LIMITS } from '../agents/snapshot-limit.ts';

/** What there is to choose where a snapshot is only looked at. */
export interface ReadRequest {
  readonly path: string;
  /** Of the hashes. */
  readonly key: Uint8Array;
  readonly hash: HashAlgorithm;
  readonly busyTimeoutMs: number;
  readonly idleTimeoutMs: number;
  readonly maxTimeMs?: number | undefined;
}

/** The `open` of someone who has no replica: nothing is to be overwritten, and no pages are asked for. */
export function openToRead({ hash, maxTimeMs = 0, ...request }: ReadRequest): MessageOf<'open'> {
  return message('open', {
    ...request,
    maxTimeMs,
    hash: HASH_ALGORITHMS[hash],
    compression: COMPRESSION_MODES.none,
    replicaHost: '',
    replicaPath: '',
    replicaFileId: '',
    overwrite: false,
    reader: READERS.file,
    ...NO_SNAPSHOT_LIMITS,
  });
}
