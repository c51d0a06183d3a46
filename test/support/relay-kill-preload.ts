/**
 * Preloaded (`node --import`) into a far agent, `sqlsync agent`, to kill a process at one exact step of the protocol. A step is a frame that came in, before the agent sees it, and a frame that went out, just after; with
 * `fine` also a frame that is to go out, just before. From the environment:
 *
 *     SQLSYNC_TEST_KILL   the step (from 1) and whom: `7 self`, `7 self fine` or `7 parent`; with `7 nobody` the agent
 *                         stands still there until there is a file of the log's name and `.go`. The step may also be
 *                         what happens there for the first time: `in:getPages`, `after:out:pages`
 *     SQLSYNC_TEST_LOG    file that gets `pid N`, a line for each step (`in open`, `before out snapshot`), and `killed`
 */
import { appendFileSync, existsSync } from 'node:fs';
import { MESSAGES } from '../../protocol/messages.ts';

const NAMES = new Map<number, string>(Object.entries(MESSAGES).map(([name, { code }]) => [code, name]));
const PREAMBLE_BYTES = 8;
const HEADER_BYTES = 16;

/** Cuts a byte stream into the preamble and frames; only the declared length of a frame is looked at. */
class FrameCutter {
  #pending = Buffer.alloc(0);
  #preambleSeen = false;

  /** The frames that `bytes` completes (the preamble counts with the first), and what it holds beyond them. */
  cut(bytes: Uint8Array): { frames: { part: Buffer; name: string }[]; rest: Buffer } {
    const known = this.#pending.length;
    this.#pending = Buffer.concat([this.#pending, bytes]);
    const frames: { part: Buffer; name: string }[] = [];
    let at = 0;
    let from = known;
    for (;;) {
      const start = at + (this.#preambleSeen ? 0 : PREAMBLE_BYTES);
      if (this.#pending.length < start + HEADER_BYTES) break;
      const end = start + HEADER_BYTES + this.#pending.readUInt32LE(start);
      if (this.#pending.length < end) break;
      const name = NAMES.get(this.#pending[start + 4] ?? 0) ?? 'unknown';
      frames.push({ part: this.#pending.subarray(from, end), name });
      this.#preambleSeen = true;
      at = from = end;
    }
    const rest = this.#pending.subarray(from);
    this.#pending = this.#pending.subarray(at);
    return { frames, rest };
  }
}

function install(command: string, log: string): void {
  const [step, whom, fine] = command.split(' ');
  const victim = whom === 'parent' ? process.ppid : process.pid;
  const incoming = new FrameCutter();
  const outgoing = new FrameCutter();
  let steps = 0;
  let struck = false;
  appendFileSync(log, `pid ${process.pid}\n`);

  const passStep = (what: string): void => {
    steps++;
    appendFileSync(log, `${what}\n`);
    if (struck || (steps !== Number(step) && step !== what.replaceAll(' ', ':'))) return;
    struck = true;
    appendFileSync(log, 'killed\n');
    if (whom === 'nobody') waitFor(`${log}.go`);
    else process.kill(victim, 'SIGKILL');
  };

  const { stdin, stdout } = process;
  const push = stdin.push.bind(stdin);
  stdin.push = (chunk: Buffer | null) => {
    if (chunk !== null) for (const { name } of incoming.cut(chunk).frames) passStep(`in ${name}`);
    return push(chunk);
  };
  const write = stdout.write.bind(stdout);
  stdout.write = (chunk: Uint8Array | string): boolean => {
    const { frames, rest } = outgoing.cut(Buffer.from(chunk as Uint8Array));
    let more = true;
    for (const { part, name } of frames) {
      if (fine === 'fine') passStep(`before out ${name}`);
      more = write(part);
      passStep(`after out ${name}`);
    }
    return rest.length > 0 ? write(rest) : more;
  };
}

/** Blocks this process: nothing in it runs meanwhile. */
function waitFor(path: string): void {
  const cell = new Int32Array(new SharedArrayBuffer(4));
  while (!existsSync(path)) Atomics.wait(cell, 0, 0, 5);
}

const { SQLSYNC_TEST_KILL: kill, SQLSYNC_TEST_LOG: log } = process.env;
if (process.argv[2] === 'agent' && kill !== undefined && log !== undefined) install(kill, log);
