import { message } from '../../../protocol/encode.ts';
import { SqlsyncError } from '../../errors.ts';
import { collectFacts } from '../../doctor/collect/collect.ts';
import { fullFacts } from '../../doctor/collect/full.ts';
import { readFacts } from '../../doctor/facts-shape.ts';
import type { Facts } from '../../doctor/facts.ts';
import { parseLocation } from '../../transport/location.ts';
import type { Location } from '../../transport/location.ts';
import type { Connection } from '../link/connection.ts';
import { converse } from './conversation.ts';
import { DEFAULT_IDLE_TIMEOUT_MS } from './run-options.ts';
import type { RunOptions } from './run-options.ts';

export interface ExamineRequest {
  /** Read the whole database, too. */
  readonly full?: boolean | undefined;
  /** How often to look at the locks; by default 6 times in 300 ms. */
  readonly looks?: number | undefined;
  /** For a database on this host: an estimate of the pages read by `full`, of `total`. */
  readonly onProgress?: ((pages: number, total: number) => void) | undefined;
}

/** Looks at the database, as often as it is called. */
export type Examine = (request: ExamineRequest) => Promise<Facts>;

/**
 * Runs `work` with a way to look at `database`, a path or [user@]host:path. Opens no connection to a database here
 * except in a child process, so this process must have none open to it. Throws SqlsyncError.
 */
export async function withExamination<T>(
  database: string,
  options: RunOptions,
  work: (examine: Examine) => Promise<T>,
): Promise<T> {
  const location = parseLocation(database);
  if (location.kind === 'local') return work((request) => examineHere(location.path, request, options));
  return converse(
    location,
    'examining',
    {
      run: options,
      traffic: { bytesSent: 0, bytesReceived: 0 },
      onWarning: (warning) => options.onWarning?.(warning, 'news'),
    },
    (connection) => work((request) => askAgent(connection, location, request, options)),
  );
}

async function examineHere(
  path: string,
  { full, looks, onProgress }: ExamineRequest,
  { signal }: RunOptions,
): Promise<Facts> {
  const facts = await collectFacts(path, { looks });
  if (full !== true) return facts;
  const found = await fullFacts(facts, { signal, onProgress });
  if (signal?.aborted === true)
    throw new SqlsyncError('INTERRUPTED', 'Interrupted', { hint: 'Nothing was changed.' });
  return { ...facts, full: found };
}

async function askAgent(
  connection: Connection,
  { path }: Location,
  { full = false, looks = 0 }: ExamineRequest,
  { idleTimeoutMs = DEFAULT_IDLE_TIMEOUT_MS }: RunOptions,
): Promise<Facts> {
  const { maxTimeMs } = connection;
  connection.send(message('examine', { path, full, looks, idleTimeoutMs, maxTimeMs }));
  const { facts } = await connection.receiveOnly('examined');
  try {
    return readFacts(facts);
  } catch (error) {
    throw new SqlsyncError('PROTOCOL', `The other side sent facts that cannot be read: ${String(error)}`, {
      hint: 'Update sqlsync on both sides.',
      cause: error,
    });
  }
}
