import { createSecretKey } from 'node:crypto';
import type { Client } from 'ssh2';

/** The parts of ssh2 (lib/protocol/crypto.js of 1.17.0, our pinned version) that its types lack. */
interface ClientInternals {
  _protocol: { _cipher?: Record<string, unknown>; _decipher?: Record<string, unknown> };
}

/**
 * Gives the ciphers of a connection their keys in the form that Node.js takes at once. ssh2 makes a new AES-GCM cipher
 * for each packet, and Node.js spends two thirds of the time of a packet on a key of bytes (16 µs against 6 for 32 KiB).
 * Call it after each exchange of keys. It changes nothing if the client does not look as this file expects.
 */
export function prepareCipherKeys(client: Client): void {
  const { _protocol: protocol } = client as unknown as Partial<ClientInternals>;
  const { _cipher: cipher, _decipher: decipher } = protocol ?? {};
  convert(cipher, '_encKey');
  convert(decipher, '_decipherKey');
}

function convert(cipher: Record<string, unknown> | undefined, name: string): void {
  const key = cipher?.[name];
  if (cipher !== undefined && Buffer.isBuffer(key)) cipher[name] = createSecretKey(key);
}
