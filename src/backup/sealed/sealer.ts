import { randomBytes } from 'node:crypto';
import { damaged } from '../store-error.ts';

/** What a sealed file holds: each kind has keys of its own, so that none passes for another. */
export type SealedKind =
  'config' | 'key' | 'pack' | 'index' | 'snapshot' | 'step' | 'mark' | 'forgotten' | 'hashes' | 'blocks';

/** How the files of a store are sealed; `config` names it. */
export type Scheme = 'none' | 'aes-256-gcm';

/** A sealed file that is not a pack. */
export interface SealedFile {
  readonly kind: SealedKind;
  /** Its name in the store, for errors. */
  readonly file: string;
  /** What the name says, where it is no hash of the file: a file under another name cannot be opened. */
  readonly name?: string;
}

/** All files of a store pass through this when they are written and when they are read. */
export interface Sealer {
  readonly scheme: Scheme;
  /** Seals a file. Each call makes other bytes: to try again is to put the same ones. */
  seal(file: Omit<SealedFile, 'file'>, plain: Uint8Array): Uint8Array;
  /** Throws SqlsyncError STORE_DAMAGED for bytes that were not sealed as this file. May return `sealed` itself. */
  open(file: SealedFile, sealed: Uint8Array): Uint8Array;
  /** How much longer a sealed file is. */
  readonly moreBytes: number;
  /** For a new pack. */
  newPack(): PackSealer;
  /** For a pack whose salt an index tells; undefined in a plain store. */
  packOf(salt: Uint8Array | undefined): PackSealer;
  /** The bytes before the first frame of a pack, and the sealer that they show; undefined if they are no such bytes. */
  readonly packHeadBytes: number;
  packIn(head: Uint8Array): PackSealer | undefined;
}

/**
 * Seals the frames of one pack, each with its length before it. Offsets are those in the file, so a frame can be opened
 * without those before it.
 */
export interface PackSealer {
  /** What the pack begins with. */
  readonly head: Uint8Array;
  /** What an index has to tell of the pack; undefined in a plain store. */
  readonly salt: Uint8Array | undefined;
  /** Bytes of the sealed length before each frame. */
  readonly lengthBytes: number;
  /** The sealed length of a frame at an offset, and the frame, which may be `plain` itself. */
  seal(offset: number, plain: Uint8Array): SealedFrame;
  /** The bytes of the sealed frame behind this length; undefined if the length was changed or cut. */
  lengthIn(offset: number, length: Uint8Array): number | undefined;
  /** Opens the frame at an offset. Throws SqlsyncError STORE_DAMAGED for `file`. May return `sealed` itself. */
  open(offset: number, sealed: Uint8Array, file: string): Uint8Array;
}

interface SealedFrame {
  readonly length: Uint8Array;
  readonly frame: Uint8Array;
}

const PLAIN_PACK = Buffer.from('SQLSYNP1');

/**
 * Random bytes at the beginning of a pack, so that no two packs ever have the same name. Otherwise objects that are
 * written again because their pack is marked would make the same pack again, and be deleted with it.
 */
const PLAIN_SALT_BYTES = 16;

const LENGTH_BYTES = 4;

class PlainPack implements PackSealer {
  readonly salt = undefined;
  readonly lengthBytes = LENGTH_BYTES;

  get head(): Uint8Array {
    return Buffer.concat([PLAIN_PACK, randomBytes(PLAIN_SALT_BYTES)]);
  }

  seal(_: number, plain: Uint8Array): SealedFrame {
    return { length: lengthBytes(plain.length), frame: plain };
  }

  lengthIn(_: number, length: Uint8Array): number | undefined {
    return length.length < LENGTH_BYTES ? undefined : lengthOf(length);
  }

  open(_: number, sealed: Uint8Array): Uint8Array {
    return sealed;
  }
}

const PLAIN_PACKS = new PlainPack();

/** For stores that are not encrypted: sealed and plain are the same bytes. */
export const PLAIN_SEALER: Sealer = {
  scheme: 'none',
  seal: (_, plain) => plain,
  open: (_, sealed) => sealed,
  moreBytes: 0,
  newPack: () => PLAIN_PACKS,
  packOf: () => PLAIN_PACKS,
  packHeadBytes: PLAIN_PACK.length + PLAIN_SALT_BYTES,
  packIn: () => PLAIN_PACKS,
};

/** The length of a frame as it stands before it. */
export function lengthBytes(length: number): Uint8Array {
  const bytes = new Uint8Array(LENGTH_BYTES);
  new DataView(bytes.buffer).setUint32(0, length, true);
  return bytes;
}

export function lengthOf(bytes: Uint8Array): number {
  return new DataView(bytes.buffer, bytes.byteOffset).getUint32(0, true);
}

/** Throws SqlsyncError STORE_DAMAGED for a scheme that this version does not know. */
export function checkScheme(scheme: unknown): Scheme {
  if (scheme === 'none' || scheme === 'aes-256-gcm') return scheme;
  throw damaged('config', `names an unknown encryption, ${String(scheme)}`);
}
