import assert from 'node:assert/strict';
import { createCipheriv, createSecretKey, randomBytes } from 'node:crypto';
import { test } from 'node:test';
import { SshPacketReader } from '../../src/transport/ssh/ssh-packet-reader.ts';

const KEY = randomBytes(16);
/** Its counter overflows into the next byte within a few packets. */
const IV = Buffer.from('000000010000000000fffffe', 'hex');

/** Packets as RFC 5647 has them, one for each payload. */
function encrypt(payloads: readonly Uint8Array[]): Buffer[] {
  const counter = IV.readBigUInt64BE(4);
  return payloads.map((payload, i) => {
    const iv = Buffer.from(IV);
    iv.writeBigUInt64BE(counter + BigInt(i), 4);
    const padding = 4 + (-(payload.length + 5) & 15);
    const length = Buffer.alloc(4);
    length.writeUInt32BE(1 + payload.length + padding);
    const cipher = createCipheriv('aes-128-gcm', KEY, iv).setAAD(length);
    const text = cipher.update(Buffer.concat([Buffer.of(padding), payload, randomBytes(padding)]));
    cipher.final();
    return Buffer.concat([length, text, cipher.getAuthTag()]);
  });
}

function reader(onPayload: (payload: Uint8Array) => unknown): SshPacketReader {
  const key = createSecretKey(KEY);
  return new SshPacketReader({ cipher: 'aes-128-gcm', key, iv: Buffer.from(IV), inSeqno: 7, onPayload });
}

const PAYLOADS = [0, 1, 11, 12, 300, 5, 32_777, 1].map((bytes) => randomBytes(bytes));

test('packets come out as they were, wherever the stream is cut, and no byte of a chunk is kept', () => {
  const stream = Buffer.concat(encrypt(PAYLOADS));
  for (const pieceBytes of [1, 2, 3, 5, 19, 37, 4096, 33_000, stream.length]) {
    const got: Buffer[] = [];
    const packets = reader((payload) => void got.push(Buffer.from(payload)));
    for (let at = 0; at < stream.length; at += pieceBytes) {
      // A chunk in the middle of another buffer, which ssh2 may ask to begin anywhere.
      const chunk = Buffer.concat([Buffer.of(9, 9), stream.subarray(at, at + pieceBytes), Buffer.of(9)]);
      assert.equal(packets.decrypt(chunk, 2, chunk.length - 1), undefined);
      chunk.fill(0);
    }
    assert.deepEqual(got, PAYLOADS);
    assert.equal(packets.inSeqno, 7 + PAYLOADS.length);
  }
});

test('the reader of packets stops where a payload changes the cipher, and says where to go on', () => {
  const [first, second] = encrypt([randomBytes(40), randomBytes(50)]) as [Buffer, Buffer];
  const stream = Buffer.concat([first, second]);
  assert.equal(reader(() => false).decrypt(stream, 0, stream.length), first.length);
  assert.equal(reader(() => 11).decrypt(stream, 0, stream.length), 11);
});

test('a packet with a changed byte is refused, and its payload is not given', () => {
  const [packet] = encrypt([randomBytes(30)]) as [Buffer];
  for (let at = 0; at < packet.length; at++) {
    const changed = Buffer.from(packet);
    changed[at] = (changed[at] as number) ^ 1;
    const refused = reader(() => assert.fail('a payload was given'));
    // A changed length may be one that is only waited for.
    if (at < 4) changed.writeUInt32BE(packet.readUInt32BE() ^ 16);
    const rest = Buffer.concat([changed, Buffer.alloc(32)]);
    assert.throws(() => refused.decrypt(rest, 0, rest.length), /Bad packet length|authenticate data/);
  }
});

test('a packet of a length that SSH does not allow is refused before its bytes arrive', () => {
  for (const length of [0, 15, 17, 35_008, 0xffffffff]) {
    const bytes = Buffer.alloc(4);
    bytes.writeUInt32BE(length);
    assert.throws(() => reader(() => undefined).decrypt(bytes, 0, 4), /Bad packet length/);
    const slow = reader(() => undefined);
    slow.decrypt(bytes, 0, 3);
    assert.throws(() => slow.decrypt(bytes, 3, 4), /Bad packet length/);
  }
});
