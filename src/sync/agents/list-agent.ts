import { resolve } from 'node:path';
import { message } from '../../../protocol/encode.ts';
import { MAX_BODY_BYTES, MAX_TEXTS } from '../../../protocol/limits.ts';
import type { MessageOf } from '../../../protocol/messages.ts';
import { listDatabases } from '../folder/list-databases.ts';
import { FilterRules } from '../folder/filter-rules.ts';
import type { Connection } from '../link/connection.ts';
import type { AccessCheck } from '../request/restriction.ts';

/** Room for the other parts of the message. */
const MOST_BYTES = MAX_BODY_BYTES / 2;

/** Lists the databases of a folder for the peer, in parts. Throws SqlsyncError ORIGIN_*, RESTRICTED and USAGE. */
export async function serveList(
  connection: Connection,
  asked: MessageOf<'list'>,
  { access }: { readonly access?: AccessCheck | undefined },
): Promise<void> {
  const { path, include, exclude } = asked;
  const folder = access?.folder(path) ?? resolve(path);
  const { databases, omitted } = await connection.whileBusy(() =>
    listDatabases(folder, new FilterRules({ include, exclude })),
  );
  const entries = [
    ...databases.map((each) => ({ database: each })),
    ...omitted.map(({ path: each, why, mayHide }) => ({ omitted: `${mayHide ? '!' : '-'}${why}\n${each}` })),
  ];
  let at = 0;
  do {
    const part = { databases: [] as string[], omitted: [] as string[] };
    for (let bytes = 0; at < entries.length && bytes < MOST_BYTES; at++) {
      const entry = entries[at] as { readonly database: string } | { readonly omitted: string };
      if (part.databases.length + part.omitted.length >= MAX_TEXTS) break;
      if ('database' in entry) part.databases.push(entry.database);
      else part.omitted.push(entry.omitted);
      bytes += Buffer.byteLength(Object.values(entry).join('')) + 4;
    }
    connection.send(message('listed', { ...part, isLast: at >= entries.length }));
    await connection.drained();
  } while (at < entries.length);
}
