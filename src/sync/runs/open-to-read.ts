import { message } from '../../../protocol/encode.ts';
import { COMPRESSION_MODES, HASH_ALGORITHMS, READERS } from '../../../protocol/messages.ts';
import type { HashAlgorithm, MessageOf } from '../../../protocol/messages.ts';
import { NO_SNAPSHOT_LIMITS } from '../request/snapshot-limit.ts';

/** The choices for a run that only reads a snapshot. */
export interface ReadRequest {
  readonly path: string;
  /** The key of the hashes. */
  readonly key: Uint8Array;
  readonly hash: HashAlgorithm;
  readonly busyTimeoutMs: number;
  readonly idleTimeoutMs: number;
  readonly maxTimeMs?: number | undefined;
}

/** The `open` message for a reader without a replica: it overwrites nothing, and requests no pages. */
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
    knownStamp: new Uint8Array(0),
    reader: READERS.file,
    ...NO_SNAPSHOT_LIMITS,
    lookEveryMs: 0,
  });
}
