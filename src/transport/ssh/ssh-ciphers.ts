// oxlint-disable no-underscore-dangle -- members of ssh2's objects
import { createSecretKey } from 'node:crypto';
import type { CipherGCMTypes } from 'node:crypto';
import type { Duplex } from 'node:stream';
import type { Client } from 'ssh2';
import { freeChunk } from '../chunk-memory.ts';
import { SshPacketReader } from './ssh-packet-reader.ts';

/** The parts of ssh2 (lib/protocol/crypto.js of 1.17.0, our pinned version) that its types lack. */
interface ClientInternals {
  _protocol: { _cipher?: GcmCipher; _decipher?: GcmDecipher | SshPacketReader };
}

interface GcmCipher {
  _encKey?: unknown;
  encrypt: (packet: Uint8Array) => void;
}

interface GcmDecipher {
  inSeqno: number;
  _onPayload: (payload: Uint8Array) => unknown;
  _decipherSSLName?: string;
  _decipherKey?: unknown;
  _decipherIV?: unknown;
}

/**
 * Makes the packets of a connection under AES-GCM cost less. It changes nothing if the client does not look as this file
 * expects. Call it after each exchange of keys, before another packet arrives.
 */
export function prepareCiphers(client: Client, socket: Duplex): void {
  const { _protocol: protocol } = client as unknown as Partial<ClientInternals>;
  if (protocol === undefined) return;
  prepareToSend(protocol._cipher, socket);
  const reader = packetReader(protocol._decipher);
  if (reader !== undefined) protocol._decipher = reader;
}

/** Frees what arrives as soon as it is decrypted. Call it once, when ssh2 has begun to listen. */
export function freeReceived(client: Client, socket: Duplex): void {
  const { _protocol: protocol } = client as unknown as Partial<ClientInternals>;
  socket.on('data', (chunk: Uint8Array) => {
    // ssh2's own deciphers may keep a part of it.
    if (protocol?._decipher instanceof SshPacketReader) freeChunk(chunk);
  });
}

/**
 * ssh2 makes a new cipher for each packet, and Node.js spends two thirds of the time of a packet on a key of bytes (16 µs
 * against 6 for 32 KiB). It also writes each packet in three parts, each of which would be a message on the network.
 */
function prepareToSend(cipher: GcmCipher | undefined, socket: Duplex): void {
  if (cipher === undefined || !Buffer.isBuffer(cipher._encKey)) return;
  cipher._encKey = createSecretKey(cipher._encKey);
  const { encrypt } = cipher;
  cipher.encrypt = (packet) => {
    socket.cork();
    encrypt.call(cipher, packet);
    socket.uncork();
  };
}

function packetReader(decipher: GcmDecipher | SshPacketReader | undefined): SshPacketReader | undefined {
  if (decipher === undefined || decipher instanceof SshPacketReader) return undefined;
  const {
    _decipherSSLName: name,
    _decipherKey: key,
    _decipherIV: iv,
    inSeqno,
    _onPayload: onPayload,
  } = decipher;
  if (name?.endsWith('-gcm') !== true || !Buffer.isBuffer(key) || !Buffer.isBuffer(iv)) return undefined;
  return new SshPacketReader({
    cipher: name as CipherGCMTypes,
    key: createSecretKey(key),
    iv,
    inSeqno,
    onPayload,
  });
}
