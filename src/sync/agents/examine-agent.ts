import { resolve } from 'node:path';
import { message } from '../../../protocol/encode.ts';
import { MAX_BODY_BYTES } from '../../../protocol/limits.ts';
import type { MessageOf } from '../../../protocol/messages.ts';
import { SqlsyncError } from '../../errors.ts';
import { collectFacts } from '../../doctor/collect/collect.ts';
import { fullFacts } from '../../doctor/collect/full.ts';
import type { Facts } from '../../doctor/facts.ts';
import { currentFileId } from '../../pages/database-file.ts';
import type { Connection } from '../link/connection.ts';
import type { AccessCheck } from '../request/restriction.ts';

export interface ExamineOptions {
  /** A restricted peer learns nothing of processes but what they do with the database. */
  readonly access?: AccessCheck | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** Room for the other parts of the message. */
const MOST_BYTES = MAX_BODY_BYTES - 1024;

/** Looks at the database that the peer named, and sends what it found. Throws SqlsyncError ORIGIN_* and RESTRICTED. */
export async function serveExamination(
  connection: Connection,
  { path: named, full, looks }: MessageOf<'examine'>,
  { access, signal }: ExamineOptions,
): Promise<void> {
  const path = access?.path(named) ?? resolve(named);
  const fileId = access === undefined ? undefined : currentFileId(path);
  const facts = await connection.whileBusy(async (): Promise<Facts> => {
    const found = await collectFacts(path, {
      isRestricted: access !== undefined,
      ...(looks === 0 ? {} : { looks }),
    });
    return full ? { ...found, full: await fullFacts(found, { signal }) } : found;
  });
  if (fileId !== undefined) access?.opened(path, fileId, false);
  const bytes = new TextEncoder().encode(JSON.stringify(facts));
  if (bytes.length > MOST_BYTES)
    throw new SqlsyncError('SYSTEM_ERROR', `The findings about ${named} are too long for a message`, {
      hint: 'Run sqlsync doctor on that host.',
    });
  connection.send(message('examined', { facts: bytes }));
  await connection.drained();
}
