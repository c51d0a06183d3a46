/**
 * What a shared library for Linux asks of the system and offers to it, read from its file: 64-bit ELF, little-endian.
 * Pure. Throws RangeError for a file that is cut off.
 */
export interface LinkedFile {
  /** The processor's number in the format's own table. */
  readonly machine: number;
  /** The libraries that the loader has to find first. */
  readonly libraries: readonly string[];
  readonly symbols: readonly LinkedSymbol[];
}

export interface LinkedSymbol {
  readonly name: string;
  /** The file has it; otherwise it needs it. */
  readonly isDefined: boolean;
  /** The loader goes on without it. */
  readonly isWeak: boolean;
  /** A variable that each thread has for itself. */
  readonly isThreadLocal: boolean;
  /** Who has it, as the file says: a version of a library, such as GLIBC_2.28. */
  readonly from: string | undefined;
}

const DYNAMIC = 6;
const DYNAMIC_SYMBOLS = 11;
const VERSIONS_NEEDED = 0x6ffffffe;
const VERSION_OF_SYMBOL = 0x6fffffff;
const NEEDED_LIBRARY = 1n;
const WEAK = 2;
const THREAD_LOCAL = 6;

interface Section {
  readonly type: number;
  readonly bytes: Buffer;
  /** The section that belongs to it: of a table, the one with its names. */
  readonly link: number;
}

export function isElf(file: Buffer): boolean {
  return file.subarray(0, 6).equals(Buffer.from('\x7fELF\x02\x01', 'latin1'));
}

export function readElf(file: Buffer): LinkedFile {
  const sections = sectionsOf(file);
  const ofType = (type: number): Section | undefined => sections.find((section) => section.type === type);
  const namesOf = ({ link }: Section): Buffer => sections[link]?.bytes ?? Buffer.alloc(0);
  const dynamic = ofType(DYNAMIC);
  const table = ofType(DYNAMIC_SYMBOLS);
  const needed = ofType(VERSIONS_NEEDED);
  const versions = needed === undefined ? new Map() : versionNames(needed.bytes, namesOf(needed));
  const versionOf = ofType(VERSION_OF_SYMBOL)?.bytes;
  return {
    machine: file.readUInt16LE(18),
    libraries: dynamic === undefined ? [] : libraryNames(dynamic.bytes, namesOf(dynamic)),
    symbols: (table === undefined ? [] : rowsOf(table.bytes, 24)).slice(1).map((row, index) => {
      const info = row.readUInt8(4);
      const from = versions.get((versionOf?.readUInt16LE(2 * (index + 1)) ?? 0) & 0x7fff);
      return {
        name: textAt(namesOf(table as Section), row.readUInt32LE(0)),
        isDefined: row.readUInt16LE(6) !== 0,
        isWeak: info >> 4 === WEAK,
        isThreadLocal: (info & 15) === THREAD_LOCAL,
        from,
      };
    }),
  };
}

function sectionsOf(file: Buffer): Section[] {
  const start = Number(file.readBigUInt64LE(40));
  const headers = file.subarray(start, start + file.readUInt16LE(58) * file.readUInt16LE(60));
  return rowsOf(headers, file.readUInt16LE(58)).map((header) => {
    const offset = Number(header.readBigUInt64LE(24));
    const bytes = file.subarray(offset, offset + Number(header.readBigUInt64LE(32)));
    return { type: header.readUInt32LE(4), bytes, link: header.readUInt32LE(40) };
  });
}

function libraryNames(dynamic: Buffer, names: Buffer): string[] {
  return rowsOf(dynamic, 16)
    .filter((row) => row.readBigUInt64LE(0) === NEEDED_LIBRARY)
    .map((row) => textAt(names, Number(row.readBigUInt64LE(8))));
}

/** The names of versions by their numbers: a list for each library, of lists. */
function versionNames(needed: Buffer, names: Buffer): Map<number, string> {
  const found = new Map<number, string>();
  for (let at = 0, next = -1; next !== 0; at += next) {
    let inner = at + needed.readUInt32LE(at + 8);
    for (let count = needed.readUInt16LE(at + 2); count > 0; count--) {
      found.set(needed.readUInt16LE(inner + 6), textAt(names, needed.readUInt32LE(inner + 8)));
      inner += needed.readUInt32LE(inner + 12);
    }
    next = needed.readUInt32LE(at + 12);
  }
  return found;
}

/** The rows of a table that has only whole ones. */
export function rowsOf(table: Buffer, size: number): Buffer[] {
  return Array.from({ length: Math.floor(table.length / size) }, (_, index) =>
    table.subarray(index * size, (index + 1) * size),
  );
}

/** The text that ends with a byte of zero. */
export function textAt(names: Buffer, offset: number): string {
  return names.toString('latin1', offset, names.indexOf(0, offset));
}
