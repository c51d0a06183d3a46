/** The protocol version that this program speaks; SPEC.md lists what each version means. */
export const PROTOCOL_VERSION = 2;

/** The oldest version that this program still speaks. */
export const MIN_PROTOCOL_VERSION = 2;

/** The first bytes in either direction. They tell a peer at once from a login banner or another program. */
export const PREAMBLE = 'sqlsync\n';

/** The version that two peers use: the newest that both speak, or undefined if they share none. */
export function negotiateVersion(
  own: { min: number; max: number },
  peer: { min: number; max: number },
): number | undefined {
  const version = Math.min(own.max, peer.max);
  return version >= Math.max(own.min, peer.min) ? version : undefined;
}
