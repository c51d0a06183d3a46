import { closeSync, fstatSync, openSync } from 'node:fs';
import { readFully } from '../../files/read-fully.ts';
import { HEADER_BYTES } from '../../pages/header.ts';
import type { HeaderFacts, HealthFacts } from '../facts.ts';

/** The fixed values of a header: the fractions of a page that its cells may fill. */
const FRACTIONS = Buffer.from([64, 32, 32]);
const FRACTIONS_AT = 21;
const FIRST_TRUNK_AT = 32;
const FREE_PAGES_AT = 36;
const SCHEMA_FORMAT_AT = 44;
const ENCODING_AT = 56;

/** Following the list further would read a long file, and keep its numbers in memory, for a small doubt. */
const MAX_TRUNKS = 1000;
const MAX_LEAVES = 1_000_000;

/** The parts of the header that SQLite never writes otherwise, and the list of free pages. */
export function healthFacts(path: string, header: HeaderFacts, isStill: () => boolean): HealthFacts {
  const descriptor = openSync(path, 'r');
  try {
    const before = fstatSync(descriptor, { bigint: true });
    const quiet = isStill();
    const bytes = Buffer.alloc(HEADER_BYTES);
    readFully(descriptor, bytes, 0);
    const problems = headerProblems(bytes, header, Number(before.size), quiet);
    const ofList = quiet ? freelistProblems(descriptor, bytes, header, Number(before.size)) : [];
    const after = fstatSync(descriptor, { bigint: true });
    const isMoved = before.size !== after.size || before.mtimeNs !== after.mtimeNs;
    if (!quiet || isMoved || !isStill())
      return {
        problems: headerProblems(bytes, header, Number(before.size), false),
        unchecked:
          'a program is writing, or the WAL has newer pages; --full checks one state of the database',
      };
    if (ofList === undefined)
      return {
        problems,
        unchecked: 'it has more pages than a quick look follows; --full checks all of them',
      };
    return { problems: [...problems, ...ofList] };
  } finally {
    closeSync(descriptor);
  }
}

function headerProblems(bytes: Buffer, header: HeaderFacts, size: number, isStill: boolean): string[] {
  const problems: string[] = [];
  if (!bytes.subarray(FRACTIONS_AT, FRACTIONS_AT + 3).equals(FRACTIONS))
    problems.push('the header has other payload fractions than 64, 32 and 32');
  if (bytes.readUInt32BE(SCHEMA_FORMAT_AT) > 4)
    problems.push(
      `the header names schema format ${bytes.readUInt32BE(SCHEMA_FORMAT_AT)}; SQLite has 1 to 4`,
    );
  if (bytes.readUInt32BE(ENCODING_AT) > 3)
    problems.push(`the header names text encoding ${bytes.readUInt32BE(ENCODING_AT)}; SQLite has 1 to 3`);
  if (!isStill) return problems;
  const pages = size / header.pageSize;
  if (!Number.isInteger(pages))
    problems.push(`the file has ${size} bytes, which is no multiple of its page size ${header.pageSize}`);
  if (header.pageCount !== undefined && header.pageCount > Math.floor(pages))
    problems.push(
      `the header counts ${header.pageCount} pages, the file has ${Math.floor(pages)}: it was cut off`,
    );
  return problems;
}

/**
 * Each trunk page of the list has the number of the next one, a count, and the numbers of free pages. Undefined if the
 * list is too long to be followed.
 */
function freelistProblems(
  descriptor: number,
  header: Buffer,
  facts: HeaderFacts,
  size: number,
): string[] | undefined {
  const { pageSize } = facts;
  const pages = Math.floor(size / pageSize);
  const expected = header.readUInt32BE(FREE_PAGES_AT);
  const seen = new Set<number>();
  let trunk = header.readUInt32BE(FIRST_TRUNK_AT);
  for (let count = 0; trunk !== 0; count++) {
    if (count === MAX_TRUNKS || seen.size > MAX_LEAVES) return undefined;
    if (trunk < 2 || trunk > pages) return [`the list of free pages leads to page ${trunk} of ${pages}`];
    if (seen.has(trunk)) return [`the list of free pages comes to page ${trunk} twice`];
    seen.add(trunk);
    const page = Buffer.alloc(pageSize);
    readFully(descriptor, page, (trunk - 1) * pageSize);
    const leaves = page.readUInt32BE(4);
    if (leaves > pageSize / 4 - 2) return [`page ${trunk} of the list of free pages counts ${leaves} pages`];
    for (let i = 0; i < leaves; i++) {
      const leaf = page.readUInt32BE(8 + 4 * i);
      if (leaf < 2 || leaf > pages) return [`the list of free pages has page ${leaf} of ${pages}`];
      if (seen.has(leaf)) return [`the list of free pages has page ${leaf} twice`];
      seen.add(leaf);
    }
    trunk = page.readUInt32BE(0);
  }
  if (seen.size === expected) return [];
  return [`the list of free pages has ${seen.size} pages, the header counts ${expected}`];
}
