// oxlint-disable no-underscore-dangle -- members of ssh2's objects
import { createDecipheriv } from 'node:crypto';
import type { CipherGCMTypes, DecipherGCM, KeyObject } from 'node:crypto';

/** The length of a packet, which is not encrypted, precedes it; the tag that authenticates both follows. */
const LENGTH_BYTES = 4;
const TAG_BYTES = 16;

/** ssh2's own limit (lib/protocol/crypto.js). */
const PACKET_MAX_BYTES = 35_000;

/** AES-GCM encrypts blocks of so many bytes. */
const BLOCK_BYTES = 16;

/** The last 8 bytes of the IV count the packets. */
const COUNTER_START = 4;

export interface PacketReaderParts {
  /** As OpenSSL names it. */
  readonly cipher: CipherGCMTypes;
  readonly key: KeyObject;
  /** Counts on with each packet. */
  readonly iv: Uint8Array;
  /** The number of the next packet. */
  readonly inSeqno: number;
  /** Takes the payload of a packet; a result other than undefined ends `decrypt`. */
  readonly onPayload: (payload: Uint8Array) => unknown;
}

/**
 * Decrypts the packets of an SSH connection under AES-GCM, in the place of ssh2's own decipher, whose members it has.
 * ssh2 decrypts each part of a packet as it arrives, into memory of its own, and joins the parts; a packet of 32 KiB
 * mostly arrives in two. This one joins the parts before, in the same memory again and again.
 */
export class SshPacketReader {
  inSeqno: number;
  _onPayload: PacketReaderParts['onPayload'];
  readonly #cipher: CipherGCMTypes;
  readonly #key: KeyObject;
  readonly #iv: Uint8Array;
  /** The start of a packet whose rest has not arrived. */
  readonly #held = new Uint8Array(PACKET_MAX_BYTES);
  #heldBytes = 0;

  constructor(parts: PacketReaderParts) {
    this.inSeqno = parts.inSeqno;
    this._onPayload = parts.onPayload;
    this.#cipher = parts.cipher;
    this.#key = parts.key;
    this.#iv = parts.iv;
  }

  free(): void {}

  /**
   * Takes `data` from `start` to `end`, and keeps no view of it. Returns undefined when all is taken, or where to go on with
   * another decipher, as ssh2 expects it. Throws an Error for a packet of a wrong length, or with a wrong tag.
   */
  decrypt(data: Uint8Array, start: number, end: number): unknown {
    for (let at = start; at < end;) {
      let packet: Uint8Array;
      if (this.#heldBytes === 0 && end - at >= LENGTH_BYTES && end - at >= packetBytes(data, at)) {
        packet = data.subarray(at, at + packetBytes(data, at));
        at += packet.length;
      } else {
        at += this.#hold(data.subarray(at, end));
        if (!this.#isWhole) continue;
        packet = this.#held.subarray(0, this.#heldBytes);
        this.#heldBytes = 0;
      }
      const result = this._onPayload(this.#open(packet));
      if (result !== undefined) return result === false ? at : result;
    }
    return undefined;
  }

  get #isWhole(): boolean {
    return this.#heldBytes >= LENGTH_BYTES && this.#heldBytes === packetBytes(this.#held, 0);
  }

  /** Takes what is missing of the length, or of the packet. Returns the number of bytes. */
  #hold(data: Uint8Array): number {
    const wanted = this.#heldBytes < LENGTH_BYTES ? LENGTH_BYTES : packetBytes(this.#held, 0);
    const part = data.subarray(0, wanted - this.#heldBytes);
    this.#held.set(part, this.#heldBytes);
    this.#heldBytes += part.length;
    return part.length;
  }

  /** The payload, without its padding. */
  #open(packet: Uint8Array): Uint8Array {
    const textEnd = packet.length - TAG_BYTES;
    const decipher: DecipherGCM = createDecipheriv(this.#cipher, this.#key, this.#iv);
    decipher.setAAD(packet.subarray(0, LENGTH_BYTES));
    const text = decipher.update(packet.subarray(LENGTH_BYTES, textEnd));
    decipher.setAuthTag(packet.subarray(textEnd));
    decipher.final();
    this.inSeqno = (this.inSeqno + 1) >>> 0;
    for (let i = this.#iv.length - 1; i >= COUNTER_START && ++(this.#iv[i] as number) > 255; i--);
    const padding = text[0] as number;
    if (padding >= text.length) throw new Error('Bad padding length');
    return text.subarray(1, text.length - padding);
  }
}

/** The bytes of the packet that begins at `at`, with its length and its tag. */
function packetBytes(bytes: Uint8Array, at: number): number {
  const length = new DataView(bytes.buffer, bytes.byteOffset + at, LENGTH_BYTES).getUint32(0);
  if (
    length < BLOCK_BYTES ||
    length % BLOCK_BYTES !== 0 ||
    length > PACKET_MAX_BYTES - LENGTH_BYTES - TAG_BYTES
  )
    throw new Error('Bad packet length');
  return LENGTH_BYTES + length + TAG_BYTES;
}
