import { join, resolve } from 'node:path';
import { message } from '../../../protocol/encode.ts';
import { MAX_BODY_BYTES, MAX_TEXTS } from '../../../protocol/limits.ts';
import type { MessageOf } from '../../../protocol/messages.ts';
import { realPath } from '../../files/path-names.ts';
import { listDatabases } from '../folder/list-databases.ts';
import type { FolderList } from '../folder/list-databases.ts';
import { FilterRules } from '../folder/filter-rules.ts';
import { Looker } from '../folder/look.ts';
import { BATCH, packStamps } from '../folder/stamp-list.ts';
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
  const list = await connection.whileBusy(() => listDatabases(folder, new FilterRules({ include, exclude })));
  const parts = partsOf(list, asked.stamps ? BATCH : MAX_TEXTS);
  for (const [i, part] of parts.entries()) {
    const looks = (): Uint8Array => stampsOf(realPath(folder), part.databases);
    const stamps = asked.stamps ? await connection.whileBusy(looks) : new Uint8Array(0);
    connection.send(message('listed', { ...part, stamps, isLast: i === parts.length - 1 }));
    await connection.drained();
  }
}

interface Part {
  readonly databases: string[];
  readonly omitted: string[];
}

/** At least one part, each of at most so many databases, and of a size that a message can have. */
function partsOf({ databases, omitted }: FolderList, most: number): Part[] {
  const entries = [
    ...databases.map((text) => ({ kind: 'databases', text }) as const),
    ...omitted.map(
      ({ path, why, mayHide }) =>
        ({ kind: 'omitted', text: `${mayHide ? '!' : '-'}${why}\n${path}` }) as const,
    ),
  ];
  let part: Part = { databases: [], omitted: [] };
  const parts = [part];
  let bytes = 0;
  for (const { kind, text } of entries) {
    if (
      bytes >= MOST_BYTES ||
      part.databases.length >= most ||
      part.databases.length + part.omitted.length >= MAX_TEXTS
    ) {
      part = { databases: [], omitted: [] };
      parts.push(part);
      bytes = 0;
    }
    part[kind].push(text);
    bytes += Buffer.byteLength(text) + 4;
  }
  return parts;
}

function stampsOf(folder: string, databases: readonly string[]): Uint8Array {
  const looker = new Looker();
  return packStamps(databases.map((each) => looker.look(join(folder, each))?.stamp));
}
