import { dirname, join, resolve } from 'node:path';
import { message } from '../../../protocol/encode.ts';
import { HASH_ALGORITHMS, nameOf } from '../../../protocol/messages.ts';
import type { MessageOf } from '../../../protocol/messages.ts';
import { toGaps } from '../../../protocol/page-batch.ts';
import { SqlsyncError } from '../../errors.ts';
import { folderWarnings } from '../../replica/replica-links.ts';
import { lookAtKnownCopy } from '../folder/known-copies.ts';
import { isPlainPath } from '../folder/list-databases.ts';
import { Looker } from '../folder/look.ts';
import { unpackStamps } from '../folder/stamp-list.ts';
import type { Connection } from '../link/connection.ts';
import type { AccessCheck } from '../request/restriction.ts';

/** Says which replicas are known as exact copies. Writes nothing. Throws SqlsyncError PROTOCOL. */
export async function serveRecognition(
  connection: Connection,
  asked: MessageOf<'recognize'>,
  { access }: { readonly access?: AccessCheck | undefined },
): Promise<void> {
  const hash = nameOf(HASH_ALGORITHMS, asked.hash);
  if (hash === undefined) throw new SqlsyncError('PROTOCOL', 'The other side asked for an unknown hash');
  const { databases, fullEveryMs } = asked;
  const stamps = unpackStamps(asked.stamps, databases.length);
  const known: number[] = [];
  /** A replica in each folder. */
  const folders = new Map<string, string>();
  await connection.whileBusy(() => {
    const looker = new Looker();
    for (const [i, path] of databases.entries()) {
      const replica = isPlainPath(path) ? allowed(join(asked.path, path), access) : undefined;
      if (replica === undefined) continue;
      const copy = {
        replica,
        originName: join(asked.originName, path),
        originStamp: stamps[i] as Uint8Array,
      };
      if (lookAtKnownCopy(copy, { hash, fullEveryMs }, looker) === undefined) continue;
      known.push(i);
      folders.set(dirname(replica), replica);
    }
  });
  const warnings = [...folders.values()].flatMap((replica) => folderWarnings(replica));
  connection.send(message('recognized', { known: toGaps(known), warnings }));
  await connection.drained();
}

/** The path to look at; undefined if this agent may not write it. A `replicate` of it gets the reason. */
function allowed(named: string, access: AccessCheck | undefined): string | undefined {
  try {
    return access?.path(named, { keepLink: true }) ?? resolve(named);
  } catch {
    return undefined;
  }
}
