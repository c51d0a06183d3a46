import { rowsOf, textAt } from './elf-file.ts';
import type { LinkedFile } from './elf-file.ts';

/** A library for macOS, read as `readElf` reads one for Linux: 64-bit Mach-O for one processor. Pure. */
export interface MachOFile extends LinkedFile {
  /** The oldest macOS that loads it, as `11.0`. */
  readonly minimum: string | undefined;
  readonly isSigned: boolean;
}

const SYMBOL_TABLE = 0x2;
const LOAD_LIBRARY = 0xc;
const CODE_SIGNATURE = 0x1d;
const MINIMUM_VERSION = 0x24;
const BUILD_VERSION = 0x32;

/** Seen by other files, unless it is also private to this one. */
const EXTERNAL = 0x01;
const PRIVATE = 0x10;
const KIND = 0x0e;
const WEAK_REFERENCE = 0x40;

/** Stands in place of a library for a symbol that the loader looks for in all that the process has loaded. */
const ANY_LIBRARY = 0xfe;

export function isMachO(file: Buffer): boolean {
  return file.length > 32 && file.readUInt32LE(0) === 0xfeedfacf;
}

export function readMachO(file: Buffer): MachOFile {
  const commands = commandsOf(file);
  const libraries = commands
    .filter(({ kind }) => kind === LOAD_LIBRARY)
    .map(({ bytes }) => textAt(bytes, bytes.readUInt32LE(8)));
  const table = commands.find(({ kind }) => kind === SYMBOL_TABLE)?.bytes;
  const oldest =
    commands.find(({ kind }) => kind === BUILD_VERSION)?.bytes.readUInt32LE(12) ??
    commands.find(({ kind }) => kind === MINIMUM_VERSION)?.bytes.readUInt32LE(8);
  return {
    machine: file.readUInt32LE(4),
    libraries,
    symbols: table === undefined ? [] : symbolsOf(file, table, libraries),
    minimum: oldest === undefined ? undefined : `${oldest >> 16}.${(oldest >> 8) & 0xff}`,
    isSigned: commands.some(({ kind }) => kind === CODE_SIGNATURE),
  };
}

function commandsOf(file: Buffer): { kind: number; bytes: Buffer }[] {
  const commands = [];
  for (let at = 32, count = file.readUInt32LE(16); count > 0; count--) {
    const size = file.readUInt32LE(at + 4);
    commands.push({ kind: file.readUInt32LE(at), bytes: file.subarray(at, at + size) });
    at += size;
  }
  return commands;
}

function symbolsOf(file: Buffer, command: Buffer, libraries: readonly string[]): LinkedFile['symbols'] {
  const [start = 0, count = 0, namesAt = 0] = [8, 12, 16].map((offset) => command.readUInt32LE(offset));
  const names = file.subarray(namesAt);
  return rowsOf(file.subarray(start, start + 16 * count), 16)
    .filter((row) => (row.readUInt8(4) & (EXTERNAL | PRIVATE)) === EXTERNAL)
    .map((row) => {
      const name = textAt(names, row.readUInt32LE(0));
      const isDefined = (row.readUInt8(4) & KIND) !== 0;
      const flags = row.readUInt16LE(6);
      const library = flags >> 8;
      const from = library === ANY_LIBRARY ? undefined : libraries[library - 1];
      return {
        name: name.replace(/^_/, ''),
        isDefined,
        isWeak: !isDefined && (flags & WEAK_REFERENCE) !== 0,
        isThreadLocal: false,
        from: isDefined ? undefined : from,
      };
    });
}
