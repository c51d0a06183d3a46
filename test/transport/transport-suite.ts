import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import type { Readable, Writable } from 'node:stream';
import { describe, test } from 'node:test';
import type { TestContext } from 'node:test';
import type { Transport } from '../../src/transport/transport.ts';

export interface TransportUnderTest {
  transport: Transport;
  /** The most bytes that the medium itself may hold (pipes, sockets, windows) before a writer has to wait. */
  mediumBytes: number;
}

/**
 * Opens a transport whose far end runs {@link ECHO_PROGRAM}, or does the same: it repeats every byte in
 * order, ends its output when its input ends, and stops reading while nobody reads its output.
 */
export type OpenEcho = (context: TestContext) => Promise<TransportUnderTest>;

/** For `node -e`. */
export const ECHO_PROGRAM = 'process.stdin.pipe(process.stdout)';

/** The checks for every medium that carries the protocol. */
export function transportSuite(name: string, openEcho: OpenEcho, skip: string | false = false): void {
  describe(`${name} transport`, { skip, timeout: 300_000 }, () => {
    test('a transport carries bytes in order both ways, in any pieces', async (context) => {
      const { transport } = await openEcho(context);
      const chunks = seededChunks(6 * 1024 * 1024, seedOf(context));
      const received = digest(transport.input);
      await writeAll(transport.output, chunks);
      transport.output.end();
      const sent = createHash('sha256');
      for (const chunk of chunks) sent.update(chunk);
      assert.equal((await received).sha256, sent.digest('hex'));
    });

    test('a transport keeps a frame of 4 MiB of any bytes intact', async (context) => {
      const { transport } = await openEcho(context);
      const frame = seededBytes(4 * 1024 * 1024, seedOf(context));
      const received = digest(transport.input);
      transport.output.end(frame);
      const { byteCount, sha256 } = await received;
      assert.equal(byteCount, frame.length);
      assert.equal(sha256, createHash('sha256').update(frame).digest('hex'));
    });

    test('a transport answers while more is still to be sent', async (context) => {
      const { transport } = await openEcho(context);
      transport.output.write('ping');
      const [answer] = (await once(transport.input, 'data')) as [Buffer];
      assert.equal(answer.toString(), 'ping');
      transport.output.end();
      await once(transport.input, 'end');
    });

    test('a transport makes the writer wait while the far end does not read', async (context) => {
      const { transport, mediumBytes } = await openEcho(context);
      const chunk = Buffer.alloc(64 * 1024, 'x');
      const limit = mediumBytes + 16 * 1024 * 1024;
      let accepted = 0;
      let sent = 0;
      let stopped = false;
      // Nobody reads our input, so the echo stops reading, and so must our writes stop: a write that called
      // back has left our hands. Without backpressure all of them would, as fast as they can.
      const stuck = await new Promise<boolean>((resolve) => {
        const writeNext = (): void => {
          sent += chunk.length;
          transport.output.write(chunk, (error) => {
            assert.ifError(error);
            accepted += chunk.length;
            if (accepted > limit) resolve(false);
            else if (!stopped) writeNext();
          });
        };
        let seen = 0;
        const watch = setInterval(() => {
          if (accepted > 0 && accepted === seen) resolve(true);
          seen = accepted;
        }, 300);
        context.after(() => clearInterval(watch));
        writeNext();
      });
      stopped = true;
      assert.ok(stuck, `${accepted} bytes were taken that nobody read; expected at most ${limit}`);
      // The waiting bytes arrive, whole, once they are read.
      transport.output.end();
      assert.equal((await digest(transport.input)).byteCount, sent);
    });

    test('a transport tells the far end that our output ended, and ends the input after the last byte', async (context) => {
      const { transport } = await openEcho(context);
      transport.output.end('last words');
      assert.equal((await digest(transport.input)).byteCount, 'last words'.length);
      assert.deepEqual(await transport.exited, { status: 0, signal: null, stderr: '' });
    });

    test('a transport ends the input if the far end ends without a byte', async (context) => {
      const { transport } = await openEcho(context);
      transport.output.end();
      assert.equal((await digest(transport.input)).byteCount, 0);
      assert.equal((await transport.exited).status, 0);
    });

    test('a transport settles `exited` and closes both streams when it is terminated, twice too', async (context) => {
      const { transport } = await openEcho(context);
      transport.output.write('ping');
      await once(transport.input, 'data');
      const closed = Promise.all([closedOf(transport.input), closedOf(transport.output)]);
      transport.terminate();
      transport.terminate();
      await closed;
      assert.notEqual((await transport.exited).status, 0);
      assert.equal(transport.input.destroyed, true);
      assert.equal(transport.output.writable, false);
    });

    test('a transport lets no write hang when it is terminated', async (context) => {
      const { transport, mediumBytes } = await openEcho(context);
      const write = (): Promise<unknown> =>
        new Promise((resolve) => transport.output.write(Buffer.alloc(mediumBytes), resolve));
      const outcomes = Promise.all([write(), write(), write(), write()]);
      setImmediate(() => transport.terminate());
      assert.ok((await outcomes).at(-1) instanceof Error);
    });

    test('a transport ends the far end when our output is destroyed', async (context) => {
      const { transport } = await openEcho(context);
      transport.output.destroy();
      await digest(transport.input);
      assert.equal((await transport.exited).status, 0);
    });

    test('a transport describes itself', async (context) => {
      const { transport } = await openEcho(context);
      assert.match(transport.description, /\S/);
    });
  });
}

/** Repeats all bytes that `transport` receives: the far end of a transport within one process. */
export async function echo(transport: Transport): Promise<void> {
  try {
    for await (const chunk of transport.input) {
      if (!transport.output.write(chunk)) await once(transport.output, 'drain');
    }
    transport.output.end();
  } catch {
    // The near end terminated.
  }
}

export async function digest(input: Readable): Promise<{ byteCount: number; sha256: string }> {
  const hash = createHash('sha256');
  let byteCount = 0;
  for await (const chunk of input as AsyncIterable<Buffer>) {
    hash.update(chunk);
    byteCount += chunk.length;
  }
  return { byteCount, sha256: hash.digest('hex') };
}

async function writeAll(output: Writable, chunks: Buffer[]): Promise<void> {
  for (const chunk of chunks) {
    if (!output.write(chunk)) await once(output, 'drain');
  }
}

function closedOf(stream: Readable | Writable): Promise<void> {
  return stream.closed ? Promise.resolve() : new Promise((resolve) => stream.once('close', () => resolve()));
}

/** The seed: from SQLSYNC_TEST_SEED to repeat a failure, else new; the output of the test has it. */
function seedOf(context: TestContext): string {
  const seed = process.env['SQLSYNC_TEST_SEED'] ?? randomBytes(4).toString('hex');
  context.diagnostic(`to repeat: SQLSYNC_TEST_SEED=${seed}`);
  return seed;
}

function seededBytes(length: number, seed: string): Buffer {
  return createHash('shake256', { outputLength: length }).update(seed).digest();
}

/** Pieces of 1 byte to 128 KiB, most of them small. */
function seededChunks(length: number, seed: string): Buffer[] {
  const bytes = seededBytes(length, seed);
  const chunks: Buffer[] = [];
  for (let offset = 0; offset < length;) {
    const size = 1 + (bytes.readUInt32LE(offset % (length - 4)) >>> (15 + (chunks.length % 12)));
    chunks.push(bytes.subarray(offset, offset + size));
    offset += size;
  }
  return chunks;
}
