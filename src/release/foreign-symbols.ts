/**
 * What a binding asks of the system's C library that an older one lacks: symbols of a glibc newer than `glibc`, and an
 * `errno` of the binding's own, which SQLite would read in place of the C library's (glibc-stat.c). Finds their names in
 * the file's table of dynamic symbols. Pure.
 *
 * @param glibc - a version, such as 2.28.
 */
export function foreignSymbols(binding: Buffer, glibc: string): string[] {
  const text = binding.toString('latin1');
  const versions = new Set(
    [...text.matchAll(/\0GLIBC_(\d+(?:\.\d+)+)(?=\0)/g)].map(([, version]) => version as string),
  );
  const newer = [...versions]
    .filter((version) => isNewer(version, glibc))
    .map((version) => `GLIBC_${version}`);
  return text.includes('\0errno\0') ? [...newer, 'errno'] : newer;
}

function isNewer(version: string, than: string): boolean {
  const [a, b] = [version, than].map((text) => text.split('.').map(Number)) as [number[], number[]];
  for (const [index, part] of a.entries()) {
    const other = b[index] ?? 0;
    if (part !== other) return part > other;
  }
  return false;
}
