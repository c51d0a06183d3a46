import { spawn } from 'node:child_process';

/**
 * `stripping-sftp-server.ts SERVER FLAGS`: an SFTP server that tells in lists only the attributes of these flags, as
 * some do.
 */
const [server = '', flags = '0'] = process.argv.slice(2);
const kept = Number(flags);
const child = spawn(server, { stdio: ['pipe', 'pipe', 'inherit'] });
process.stdin.pipe(child.stdin);
child.on('exit', () => process.exit());
let unread = Buffer.alloc(0);
child.stdout.on('data', (bytes: Buffer) => {
  unread = Buffer.concat([unread, bytes]);
  while (unread.length >= 4 && unread.length >= 4 + unread.readUInt32BE(0)) {
    const length = unread.readUInt32BE(0);
    const packet = unread.subarray(4, 4 + length);
    unread = unread.subarray(4 + length);
    const sent = packet[0] === 104 ? stripped(packet) : packet;
    const head = Buffer.alloc(4);
    head.writeUInt32BE(sent.length);
    process.stdout.write(Buffer.concat([head, sent]));
  }
});

/** The names of a list, with fewer attributes. */
function stripped(packet: Buffer): Buffer {
  const parts = [packet.subarray(0, 9)];
  let at = 9;
  const take = (length: number): Buffer => packet.subarray(at, (at += length));
  for (let count = packet.readUInt32BE(5); count > 0; count--) {
    for (let text = 0; text < 2; text++) parts.push(take(4 + packet.readUInt32BE(at)));
    const told = take(4).readUInt32BE(0);
    const left = Buffer.alloc(4);
    left.writeUInt32BE(told & kept);
    parts.push(left);
    for (const [flag, length] of [
      [1, 8],
      [2, 8],
      [4, 4],
      [8, 8],
    ] as const) {
      if ((told & flag) === 0) continue;
      const field = take(length);
      if ((kept & flag) !== 0) parts.push(field);
    }
  }
  return Buffer.concat(parts);
}
