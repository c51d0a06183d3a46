import { createCipheriv, createDecipheriv, hkdfSync, randomBytes } from 'node:crypto';
import { damaged } from '../store-error.ts';
import { lengthBytes, lengthOf } from './sealer.ts';
import type { PackSealer, SealedFile, SealedKind, Sealer } from './sealer.ts';

export const MASTER_KEY_BYTES = 32;

export function newMasterKey(): Uint8Array {
  return randomBytes(MASTER_KEY_BYTES);
}

/** What each sealed file begins with, before its salt. */
export const SEALED_MAGIC: Uint8Array = Buffer.from('SQLSYNE2');

const SALT_BYTES = 32;
const TAG_BYTES = 16;
const NONCE_BYTES = 12;
const HEAD_BYTES: number = SEALED_MAGIC.length + SALT_BYTES;
const SEALED_LENGTH_BYTES: number = 4 + TAG_BYTES;

/** True for a file, or the beginning of one, that is sealed. */
export function looksSealed(bytes: Uint8Array): boolean {
  return Buffer.compare(bytes.subarray(0, SEALED_MAGIC.length), SEALED_MAGIC) === 0;
}

/**
 * Seals files with AES-256-GCM. Each file has a key of its own, made of the master key, 32 random bytes of its own, its
 * kind and the store: so nonces need not be random, and say where in the file a piece stands.
 *
 *     file   magic 8 │ salt 32 │ piece │ …           one piece, but in a pack two for each frame: length, and content
 *     piece  ciphertext │ tag 16                     nonce: 4 zeros, and the offset of the piece in 8 bytes
 *     key    HKDF-SHA256(master key, salt, "sqlsync 2 KIND STORE-ID")
 *     additional data                                "sqlsync 2 KIND STORE-ID NAME"
 */
export class AesGcmSealer implements Sealer {
  readonly scheme = 'aes-256-gcm';
  readonly moreBytes: number = HEAD_BYTES + TAG_BYTES;
  readonly packHeadBytes: number = HEAD_BYTES;
  readonly #master: Uint8Array;
  readonly #store: string;

  /** @param store - id of the store: files of another one cannot be opened. */
  constructor(master: Uint8Array, store: string) {
    this.#master = master;
    this.#store = store;
  }

  seal({ kind, name }: Omit<SealedFile, 'file'>, plain: Uint8Array): Uint8Array {
    const salt = randomBytes(SALT_BYTES);
    return Buffer.concat([SEALED_MAGIC, salt, this.#pieces(kind, name, salt).seal(HEAD_BYTES, plain)]);
  }

  open({ kind, name, file }: SealedFile, sealed: Uint8Array): Uint8Array {
    if (!looksSealed(sealed) || sealed.length < HEAD_BYTES + TAG_BYTES)
      throw damaged(file, 'is not a sealed file, and all files of this store are');
    const salt = sealed.subarray(SEALED_MAGIC.length, HEAD_BYTES);
    const plain = this.#pieces(kind, name, salt).open(HEAD_BYTES, sealed.subarray(HEAD_BYTES));
    if (plain === undefined) throw notOurs(file);
    return plain;
  }

  newPack(): PackSealer {
    return this.packOf(randomBytes(SALT_BYTES));
  }

  packOf(salt: Uint8Array | undefined): PackSealer {
    // An index without salts is of no encrypted store.
    if (salt?.length !== SALT_BYTES) throw damaged('indexes', 'do not tell the salt of a pack');
    return new SealedPack(salt, this.#pieces('pack', undefined, salt));
  }

  packIn(head: Uint8Array): PackSealer | undefined {
    if (!looksSealed(head) || head.length < HEAD_BYTES) return undefined;
    return this.packOf(Uint8Array.from(head.subarray(SEALED_MAGIC.length, HEAD_BYTES)));
  }

  #pieces(kind: SealedKind, name: string | undefined, salt: Uint8Array): Pieces {
    const context = `sqlsync 2 ${kind} ${this.#store}`;
    const key = new Uint8Array(hkdfSync('sha256', this.#master, salt, context, 32));
    return new Pieces(key, Buffer.from(`${context} ${name ?? ''}`));
  }
}

/** The pieces of one file. */
class Pieces {
  readonly #key: Uint8Array;
  readonly #additional: Uint8Array;

  constructor(key: Uint8Array, additional: Uint8Array) {
    this.#key = key;
    this.#additional = additional;
  }

  seal(offset: number, plain: Uint8Array): Uint8Array {
    const cipher = createCipheriv('aes-256-gcm', this.#key, nonceAt(offset), { authTagLength: TAG_BYTES });
    cipher.setAAD(this.#additional);
    const sealed = cipher.update(plain);
    cipher.final();
    return Buffer.concat([sealed, cipher.getAuthTag()]);
  }

  /** undefined if the piece was changed, or sealed elsewhere. */
  open(offset: number, sealed: Uint8Array): Uint8Array | undefined {
    if (sealed.length < TAG_BYTES) return undefined;
    const cipher = createDecipheriv('aes-256-gcm', this.#key, nonceAt(offset), { authTagLength: TAG_BYTES });
    cipher.setAAD(this.#additional);
    cipher.setAuthTag(sealed.subarray(-TAG_BYTES));
    const plain = cipher.update(sealed.subarray(0, -TAG_BYTES));
    try {
      cipher.final();
      return plain;
    } catch {
      return undefined;
    }
  }
}

class SealedPack implements PackSealer {
  readonly salt: Uint8Array;
  readonly lengthBytes: number = SEALED_LENGTH_BYTES;
  readonly #pieces: Pieces;

  constructor(salt: Uint8Array, pieces: Pieces) {
    this.salt = salt;
    this.#pieces = pieces;
  }

  get head(): Uint8Array {
    return Buffer.concat([SEALED_MAGIC, this.salt]);
  }

  seal(offset: number, plain: Uint8Array): { length: Uint8Array; frame: Uint8Array } {
    const length = this.#pieces.seal(offset, lengthBytes(plain.length + TAG_BYTES));
    return { length, frame: this.#pieces.seal(offset + SEALED_LENGTH_BYTES, plain) };
  }

  lengthIn(offset: number, length: Uint8Array): number | undefined {
    const plain = this.#pieces.open(offset, length);
    return plain?.length === 4 ? lengthOf(plain) : undefined;
  }

  open(offset: number, sealed: Uint8Array, file: string): Uint8Array {
    const plain = this.#pieces.open(offset, sealed);
    if (plain === undefined) throw notOurs(file);
    return plain;
  }
}

function nonceAt(offset: number): Uint8Array {
  const nonce = Buffer.alloc(NONCE_BYTES);
  nonce.writeBigUInt64LE(BigInt(offset), 4);
  return nonce;
}

function notOurs(file: string): Error {
  return damaged(file, 'was changed, or was not written with the key of this store');
}
