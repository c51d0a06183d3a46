import { spawn } from 'node:child_process';
import { appendFileSync, existsSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { Random } from '../../fixtures/random.ts';

/**
 * `flaky-sftp-server.ts SERVER FOLDER DELAY_MS CHANCE`: an SFTP server whose answers take so long, and of which each request
 * fails with this chance. It adds a byte to FOLDER/requests for each request, and to FOLDER/failures for each failure. With
 * FOLDER/calm nothing fails. FOLDER/kill is the number of the request at which the client is to be killed (its process is in
 * FOLDER/pid), and `before` or `after` the effect. FOLDER/refuse has a line for each reading of a file that is to be refused.
 */
const [server = '', folder = '', delayMs = '0', chance = '0'] = process.argv.slice(2);

/**
 * The connection ends before the request has its effect, after it, or within the answer; or the server refuses the request.
 * After the refusal of a read the client tries once more, after any other not.
 */
const FLAWS = ['before', 'after', 'half', 'before', 'after', 'half', 'refused'] as const;

const INIT = 1;
const READ = 5;
const STATUS = 101;
const STATUS_FAILURE = 4;

const live = `${folder}/live/${process.pid}`;
writeFileSync(live, '');
process.once('exit', () => rmSync(live, { force: true }));
const random = new Random(process.pid);
const child = spawn(server, { stdio: ['pipe', 'pipe', 'inherit'] });
/** The request whose answer is the last one, or half of it. */
let last: { readonly id: number; readonly isHalf: boolean } | undefined;

process.stdin.on('end', () => child.stdin.end());
child.on('exit', () => setTimeout(() => process.exit(), Number(delayMs)));
child.stdin.on('error', () => {});
eachPacket(process.stdin, (packet) => {
  const id = packet.readUInt32BE(5);
  appendFileSync(`${folder}/requests`, '.');
  const killed = killNow();
  if (killed === 'before') process.exit();
  if (packet[4] === READ && refuseNow()) return answer(refusalOf(id));
  const isFlawed = packet[4] !== INIT && random.chance(Number(chance)) && !existsSync(`${folder}/calm`);
  if (!isFlawed) return void child.stdin.write(packet);
  appendFileSync(`${folder}/failures`, '.');
  const flaw = random.pick(FLAWS);
  if (flaw === 'before') process.exit();
  if (flaw === 'refused') return answer(refusalOf(id));
  last = { id, isHalf: flaw === 'half' };
  child.stdin.write(packet);
});
eachPacket(child.stdout, (packet) => {
  if (last?.id !== packet.readUInt32BE(5)) return answer(packet);
  if (!last.isHalf) process.exit();
  answer(packet.subarray(0, packet.length - 1), () => process.exit());
});

/** True if this reading is to be refused; takes a line away. */
function refuseNow(): boolean {
  const file = `${folder}/refuse`;
  const lines = existsSync(file) ? readFileSync(file, 'utf8') : '';
  if (lines === '') return false;
  writeFileSync(file, lines.slice(lines.indexOf('\n') + 1));
  appendFileSync(`${folder}/failures`, '.');
  return true;
}

/** Kills the client if this is the request for that; returns when. */
function killNow(): string | undefined {
  if (!existsSync(`${folder}/kill`)) return undefined;
  const [at, when] = readFileSync(`${folder}/kill`, 'utf8').split(' ');
  if (statSync(`${folder}/requests`).size !== Number(at)) return undefined;
  process.kill(Number(readFileSync(`${folder}/pid`, 'utf8')), 'SIGKILL');
  return when;
}

function answer(bytes: Uint8Array, then: () => void = () => {}): void {
  // Equal delays keep the order.
  setTimeout(() => process.stdout.write(bytes, then), Number(delayMs));
}

function refusalOf(id: number): Buffer {
  const packet = Buffer.alloc(21);
  packet.writeUInt32BE(17);
  packet[4] = STATUS;
  packet.writeUInt32BE(id, 5);
  packet.writeUInt32BE(STATUS_FAILURE, 9);
  return packet;
}

/** Calls `take` with each packet, its length included. */
function eachPacket(stream: NodeJS.ReadableStream, take: (packet: Buffer) => void): void {
  let unread = Buffer.alloc(0);
  stream.on('data', (bytes: Buffer) => {
    unread = Buffer.concat([unread, bytes]);
    while (unread.length >= 4 && unread.length >= 4 + unread.readUInt32BE(0)) {
      const length = 4 + unread.readUInt32BE(0);
      take(unread.subarray(0, length));
      unread = unread.subarray(length);
    }
  });
}
