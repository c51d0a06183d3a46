import { createCipheriv, createDecipheriv, randomBytes, timingSafeEqual } from 'node:crypto';
import { isStoreId } from '../packs/object-id.ts';
import { AesGcmSealer, MASTER_KEY_BYTES } from '../sealed/aes-gcm.ts';
import { SqlsyncError, sanitizeText } from '../../errors.ts';
import { damaged } from '../store-error.ts';
import type { Password, ScryptParameters } from './password.ts';

/** What a key file says of itself, to those who have the master key. */
export interface KeyNotes {
  /** When, where and by whom it was made. */
  readonly time: string;
  readonly host: string;
  readonly user: string;
  /** As in the config, so that this can be written anew. */
  readonly graceSeconds: number;
}

/** A key file as everybody can read it. */
export interface KeyFile {
  /** Id of the store. */
  readonly store: string;
  readonly scrypt: ScryptParameters;
  readonly commitment: Uint8Array;
  readonly wrapped: Uint8Array;
  readonly notes: Uint8Array;
}

const VERSION = 2;
export const MAX_KEY_FILE_BYTES: number = 16 * 1024;

/** OWASP's choice for scrypt: 128 MB, and about 0.4 s. */
const USUAL_N: number = 2 ** 17;
const SALT_BYTES = 32;
const TAG_BYTES = 16;

/** What a key file may ask of a reader, which computes it before it knows who wrote the file: 1 GiB, some 15 s. */
const LEAST_N: number = 2 ** 15;
const MOST_N: number = 2 ** 20;
const BLOCK_SIZE = 8;
const MOST_P = 4;

/** The key is used once, so the nonce says nothing. */
const NONCE = Buffer.alloc(12);

/** The bytes of a key file that opens with `password`. */
export async function encodeKeyFile(
  master: Uint8Array,
  store: string,
  password: Password,
  notes: KeyNotes,
): Promise<Uint8Array> {
  const scrypt = { N: newN(), r: BLOCK_SIZE, p: 1, salt: randomBytes(SALT_BYTES) };
  const derived = await password.derive(scrypt);
  const cipher = createCipheriv('aes-256-gcm', derived.subarray(0, 32), NONCE);
  cipher.setAAD(additionalData(store));
  const wrapped = Buffer.concat([cipher.update(master), cipher.final(), cipher.getAuthTag()]);
  const name = scrypt.salt.toString('hex');
  const sealed = new AesGcmSealer(master, store).seal(
    { kind: 'key', name },
    Buffer.from(JSON.stringify(notes)),
  );
  return Buffer.from(
    `${JSON.stringify(
      {
        version: VERSION,
        store,
        scrypt: { N: scrypt.N, r: scrypt.r, p: scrypt.p, salt: scrypt.salt.toString('base64') },
        commitment: derived.subarray(32).toString('base64'),
        wrapped: wrapped.toString('base64'),
        notes: Buffer.from(sealed).toString('base64'),
      },
      undefined,
      2,
    )}\n`,
  );
}

/** Tests, which make many, set it to the least. Throws SqlsyncError USAGE for one that could not be read again. */
function newN(): number {
  const given = process.env['SQLSYNC_SCRYPT_N'] ?? '';
  if (given === '') return USUAL_N;
  if (isAllowedN(Number(given))) return Number(given);
  throw new SqlsyncError(
    'USAGE',
    `SQLSYNC_SCRYPT_N is ${sanitizeText(given, 40)}; expected a power of two from 2^15 to 2^20`,
    {
      hint: 'Unset it: then sqlsync takes 2^17.',
    },
  );
}

function isAllowedN(value: unknown): value is number {
  return (
    typeof value === 'number' && Number.isInteger(Math.log2(value)) && value >= LEAST_N && value <= MOST_N
  );
}

/**
 * Decodes a key file that matches its name. Computes nothing yet, and refuses what would take more time or memory than
 * any key file of ours. Throws SqlsyncError STORE_DAMAGED.
 */
export function decodeKeyFile(bytes: Uint8Array, file: string): KeyFile {
  let record: Record<string, unknown>;
  try {
    record = Object(JSON.parse(new TextDecoder().decode(bytes))) as Record<string, unknown>;
  } catch (error) {
    throw damaged(file, 'cannot be read', error);
  }
  const { version, store, scrypt } = record;
  if (version !== VERSION || !isStoreId(store)) throw damaged(file, 'is no key file that this version knows');
  const { N, r, p, salt } = Object(scrypt) as Record<string, unknown>;
  const isBounded =
    isAllowedN(N) &&
    r === BLOCK_SIZE &&
    typeof p === 'number' &&
    Number.isInteger(p) &&
    p >= 1 &&
    p <= MOST_P;
  if (!isBounded)
    throw damaged(
      file,
      `asks for scrypt with N ${String(N)}, r ${String(r)}, p ${String(p)}; expected N a power of two from 2^15 to 2^20, r 8, p 1 to 4`,
    );
  return {
    store,
    scrypt: { N, r, p, salt: bytesIn(salt, SALT_BYTES, file) },
    commitment: bytesIn(record['commitment'], 32, file),
    wrapped: bytesIn(record['wrapped'], MASTER_KEY_BYTES + TAG_BYTES, file),
    notes: bytesIn(record['notes'], undefined, file),
  };
}

/** The master key; undefined if the password is not that of this file. Throws SqlsyncError STORE_DAMAGED. */
export async function unwrap(
  { store, scrypt, commitment, wrapped }: KeyFile,
  password: Password,
  file: string,
): Promise<Uint8Array | undefined> {
  const derived = await password.derive(scrypt);
  // GCM alone would let one file open with many passwords, each with another key.
  if (!timingSafeEqual(derived.subarray(32), commitment)) return undefined;
  const cipher = createDecipheriv('aes-256-gcm', derived.subarray(0, 32), NONCE, {
    authTagLength: TAG_BYTES,
  });
  cipher.setAAD(additionalData(store));
  cipher.setAuthTag(wrapped.subarray(MASTER_KEY_BYTES));
  const master = cipher.update(wrapped.subarray(0, MASTER_KEY_BYTES));
  try {
    cipher.final();
    return master;
  } catch (error) {
    throw damaged(file, 'was changed since it was written', error);
  }
}

/** Throws SqlsyncError STORE_DAMAGED if nobody with the master key made this file. */
export function notesOf({ store, scrypt, notes }: KeyFile, master: Uint8Array, file: string): KeyNotes {
  const name = Buffer.from(scrypt.salt).toString('hex');
  const plain = new AesGcmSealer(master, store).open({ kind: 'key', file, name }, notes);
  return JSON.parse(new TextDecoder().decode(plain)) as KeyNotes;
}

function additionalData(store: string): Uint8Array {
  return Buffer.from(`sqlsync 2 master ${store}`);
}

function bytesIn(value: unknown, length: number | undefined, file: string): Uint8Array {
  const bytes = typeof value === 'string' ? Buffer.from(value, 'base64') : undefined;
  if (bytes === undefined || (length !== undefined && bytes.length !== length))
    throw damaged(file, 'has a field of another length');
  return bytes;
}
