import { isElf, readElf } from './elf-file.ts';
import type { LinkedFile, LinkedSymbol } from './elf-file.ts';
import { isMachO, readMachO } from './mach-o-file.ts';
import type { MachOFile } from './mach-o-file.ts';
import { GLIBC, MACOS } from './platforms.ts';

/** The processors' numbers in both formats. */
const MACHINES: Readonly<Record<string, number>> = {
  'linux-x64': 62,
  'linux-arm64': 183,
  'darwin-x64': 0x1000007,
  'darwin-arm64': 0x100000c,
};

/** What every system has: the C library and its parts. */
const GLIBC_LIBRARIES =
  /^(?:lib(?:c|m)\.so\.6|libpthread\.so\.0|libdl\.so\.2|ld-linux-(?:x86-64\.so\.2|aarch64\.so\.1))$/;
const MUSL_LIBRARIES = /^libc\.so$/;
const MACOS_LIBRARIES = /^\/usr\/lib\/libSystem\.B\.dylib$/;

/** What Node.js itself gives to an addon. */
const OF_NODE = /^(?:napi|node_api)_/;

/** The two names under which Node.js looks for an addon. */
const ENTRIES = ['napi_register_module_v1', 'node_api_module_get_api_version_v1'];

/**
 * Why the binding in `file` would not work on a machine of `platform`, a phrase each; empty if nothing speaks against
 * it. A cross compiler links without these errors, and only the far machine would report them. Pure.
 */
export function findFaults(file: Buffer, platform: string): string[] {
  const isForMac = platform.startsWith('darwin-');
  if (!(isForMac ? isMachO : isElf)(file)) return ['another format of file'];
  const linked = isForMac ? readMachO(file) : readElf(file);
  const defined = linked.symbols.filter(({ isDefined }) => isDefined).map(({ name }) => name);
  return [
    ...(linked.machine === MACHINES[platform.replace('-musl', '')] ? [] : ['another processor']),
    ...ENTRIES.filter((name) => !defined.includes(name)).map((name) => `no ${name}`),
    // The application's own SQLite would be found instead of ours, or ours instead of its own.
    ...defined.filter((name) => name.startsWith('sqlite3_')).map((name) => `${name} for all to see`),
    ...(isForMac
      ? faultsForMac(readMachO(file), platform)
      : faultsForLinux(linked, platform.endsWith('-musl'))),
  ];
}

function faultsForMac({ libraries, symbols, minimum, isSigned }: MachOFile, platform: string): string[] {
  return [
    ...libraries.filter((name) => !MACOS_LIBRARIES.test(name)),
    ...neededFromNowhere(symbols),
    ...(minimum === MACOS ? [] : [`macOS ${minimum ?? 'of no version'}`]),
    // macOS on arm64 ends a process that loads a file without one.
    ...(isSigned || platform !== 'darwin-arm64' ? [] : ['no signature']),
  ];
}

function faultsForLinux({ libraries, symbols }: LinkedFile, isMusl: boolean): string[] {
  const known = isMusl ? MUSL_LIBRARIES : GLIBC_LIBRARIES;
  return [
    ...libraries.filter((name) => !known.test(name)),
    // An errno of its own is not the one that the C library sets, and SQLite reads the wrong one (glibc-stat.c).
    ...symbols
      .filter(({ isThreadLocal }) => isThreadLocal)
      .map(({ name }) => `${name}, a variable for each thread`),
    // Symbols of musl have no versions.
    ...(isMusl ? [] : [...neededFromNowhere(symbols), ...newerThan(GLIBC, symbols)]),
  ];
}

function neededFromNowhere(symbols: readonly LinkedSymbol[]): string[] {
  return symbols
    .filter(
      ({ name, isDefined, isWeak, from }) =>
        !isDefined && !isWeak && from === undefined && !OF_NODE.test(name),
    )
    .map(({ name }) => `${name}, which nobody has`);
}

function newerThan(oldest: string, symbols: readonly LinkedSymbol[]): string[] {
  return symbols
    .filter(({ from = 'GLIBC_0' }) => from.localeCompare(`GLIBC_${oldest}`, 'en', { numeric: true }) > 0)
    .map(({ name, from }) => `${name} of ${from}`);
}
