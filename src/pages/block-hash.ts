/** The 12-bit hash of block `block`. Two block hashes share three bytes (protocol/SPEC.md, "Page requests"). */
export function blockHashAt(hashes: Uint8Array, block: number): number {
  const at = (block >> 1) * 3;
  const middle = hashes[at + 1] as number;
  return block % 2 === 0
    ? (hashes[at] as number) | ((middle & 0x0f) << 8)
    : (middle >> 4) | ((hashes[at + 2] as number) << 4);
}
