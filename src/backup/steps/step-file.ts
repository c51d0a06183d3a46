import { compressBody, decompressBody } from '../packs/zstd.ts';
import { idOf, isHexId, toHex } from '../packs/object-id.ts';
import type { Sealer } from '../sealed/sealer.ts';
import { damaged } from '../store-error.ts';
import { stepLabel } from './step-name.ts';
import type { StepFile } from './step-name.ts';

/** The pages in which a state differs from the one before, and what is to be known of that state. */
export interface Step {
  /** Id of the snapshot with which the stream begins. */
  readonly base: string;
  readonly stream: string;
  readonly level: number;
  readonly from: number;
  readonly to: number;
  /** When the read transaction of the state began, in ms since 1970. */
  readonly timeMs: number;
  /** Bytes. */
  readonly pageSize: number;
  readonly pageCount: number;
  /** Whole pages, by number. */
  readonly pages: ReadonlyMap<number, Uint8Array>;
}

/** The most bytes of pages in one file. */
export const MAX_STEP_BYTES: number = 16 * 1024 * 1024;

/** A file has a header, page numbers, and pages that may not shrink. */
export const MAX_STEP_FILE_BYTES: number = MAX_STEP_BYTES + 1024 * 1024;

const MAGIC = Buffer.from('SQLSYNT1');
const MAX_HEADER_BYTES = 4096;

/** The bytes of a new file, and its name. */
export async function encodeStep(step: Step, sealer: Sealer): Promise<{ name: string; bytes: Uint8Array }> {
  const { pages, ...header } = step;
  const head = Buffer.from(JSON.stringify({ version: 1, ...header }));
  const numbers = [...pages.keys()].sort((a, b) => a - b);
  const table = Buffer.alloc(8 + numbers.length * 4);
  table.writeUInt32LE(head.length, 0);
  table.writeUInt32LE(numbers.length, 4);
  for (const [i, page] of numbers.entries()) table.writeUInt32LE(page, 8 + i * 4);
  const body = new Uint8Array(numbers.length * step.pageSize);
  for (const [i, page] of numbers.entries()) body.set(pages.get(page) as Uint8Array, i * step.pageSize);
  const plain = Buffer.concat([MAGIC, table, head, await compressBody(body)]);
  const label = stepLabel(step);
  const bytes = sealer.seal({ kind: 'step', name: label }, plain);
  return { name: `${label}-${toHex(idOf(bytes))}`, bytes };
}

/** Opens a file of `steps`. Throws SqlsyncError STORE_DAMAGED if it is not what its name says. */
export function decodeStep(named: StepFile, sealed: Uint8Array, sealer: Sealer): Step {
  const file = `steps/${named.name}`;
  if (toHex(idOf(sealed)) !== named.hash) throw damaged(file, 'was changed or cut since it was written');
  const label = stepLabel(named);
  const plain = Buffer.from(sealer.open({ kind: 'step', file, name: label }, sealed));
  const [headBytes, count] =
    plain.length < 16 || !plain.subarray(0, 8).equals(MAGIC)
      ? [MAX_HEADER_BYTES + 1, 0]
      : [plain.readUInt32LE(8), plain.readUInt32LE(12)];
  const headAt = 16 + count * 4;
  const bodyAt = headAt + headBytes;
  if (headBytes > MAX_HEADER_BYTES || bodyAt > plain.length) throw damaged(file, 'is no step');
  const header = headerIn(plain.toString('utf8', headAt, bodyAt), file);
  if (stepLabel(header) !== label || !header.base.startsWith(named.stream.slice(0, 16)))
    throw damaged(file, 'is not the step that its name says');
  const { pageSize } = header;
  if (count * pageSize > MAX_STEP_BYTES + pageSize)
    throw damaged(file, `has ${count} pages of ${pageSize} bytes`);
  return { ...header, pages: pagesIn(plain.subarray(16, headAt), plain.subarray(bodyAt), header, file) };
}

type Header = Omit<Step, 'pages'>;

function headerIn(text: string, file: string): Header {
  let header: Partial<Record<keyof Header | 'version', unknown>>;
  try {
    header = JSON.parse(text) as typeof header;
  } catch (error) {
    throw damaged(file, 'cannot be read', error);
  }
  const { version, base, stream, ...numbers } = header;
  if (version !== 1) throw damaged(file, `has version ${String(version)}; expected 1`);
  const { level, from, to, timeMs, pageSize, pageCount } = numbers;
  const isWhole = [level, from, to, timeMs, pageSize, pageCount].every(Number.isSafeInteger);
  if (!isHexId(base) || typeof stream !== 'string' || !isWhole)
    throw damaged(file, 'has an incomplete header');
  return { base, stream, ...(numbers as Omit<Header, 'base' | 'stream'>) };
}

function pagesIn(
  table: Buffer,
  body: Uint8Array,
  { pageSize, pageCount }: Header,
  file: string,
): Map<number, Uint8Array> {
  const count = table.length / 4;
  let bytes: Uint8Array;
  try {
    bytes = decompressBody(body, count * pageSize);
  } catch (error) {
    throw damaged(file, 'cannot be decompressed', error);
  }
  if (bytes.length !== count * pageSize) throw damaged(file, `has ${bytes.length} bytes of pages`);
  const pages = new Map<number, Uint8Array>();
  for (let i = 0; i < count; i++) {
    const page = table.readUInt32LE(i * 4);
    if (page < 1 || page > pageCount) throw damaged(file, `has a page ${page} of ${pageCount}`);
    pages.set(page, bytes.subarray(i * pageSize, (i + 1) * pageSize));
  }
  return pages;
}
