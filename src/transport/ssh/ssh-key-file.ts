/** What a private key file reveals without its passphrase. */
export interface PrivateKeyInfo {
  encrypted: boolean;
  /** The public half, in SSH wire form; only OpenSSH's own format stores it in the clear. */
  publicKey?: Buffer;
}

const OPENSSH_MAGIC = 'openssh-key-v1\0';

/**
 * Parses a private key file (OpenSSH's own format, or PEM) without decrypting it. Pure. Returns undefined if the text
 * is not a private key. Source: PROTOCOL.key of OpenSSH; RFC 1421 section 4.6 (Proc-Type) and RFC 7468 section 11 for
 * PEM.
 */
export function inspectPrivateKey(text: string): PrivateKeyInfo | undefined {
  const armored = /-----BEGIN ([A-Z0-9 ]*)PRIVATE KEY-----([\s\S]*?)-----END /.exec(text);
  if (armored === null) return undefined;
  const [, kind, body = ''] = armored;
  if (kind !== 'OPENSSH ') {
    return { encrypted: kind === 'ENCRYPTED ' || /^Proc-Type:\s*4,\s*ENCRYPTED/m.test(body) };
  }
  const bytes = Buffer.from(body, 'base64');
  if (bytes.toString('latin1', 0, OPENSSH_MAGIC.length) !== OPENSSH_MAGIC) return undefined;
  const fields = sshStrings(bytes.subarray(OPENSSH_MAGIC.length));
  // cipher, kdf, kdf options, then the number of keys (4 bytes), then the public key
  const cipher = fields.next();
  fields.next();
  fields.next();
  fields.skip(4);
  const publicKey = fields.next();
  if (cipher === undefined || publicKey === undefined) return undefined;
  return { encrypted: cipher.toString('latin1') !== 'none', publicKey: Buffer.from(publicKey) };
}

/** The key blob of an OpenSSH `.pub` file (`type base64 comment`); undefined if the text is not one. */
export function parsePublicKeyFile(text: string): Buffer | undefined {
  const [type, base64] = text.trim().split(/\s+/);
  if (type === undefined || base64 === undefined) return undefined;
  const key = Buffer.from(base64, 'base64');
  return sshStrings(key).next()?.toString('latin1') === type ? key : undefined;
}

/** Reads consecutive SSH strings (RFC 4251 section 5); undefined past the end. */
function sshStrings(bytes: Buffer): { next(): Buffer | undefined; skip(count: number): void } {
  let offset = 0;
  return {
    next: () => {
      if (offset + 4 > bytes.length) return undefined;
      const end = offset + 4 + bytes.readUInt32BE(offset);
      if (end > bytes.length) return undefined;
      const value = bytes.subarray(offset + 4, end);
      offset = end;
      return value;
    },
    skip: (count) => {
      offset += count;
    },
  };
}
