import assert from 'node:assert/strict';
import { once } from 'node:events';
import { after, test } from 'node:test';
import type { TestContext } from 'node:test';
import { PassThrough } from 'node:stream';
import type { ClientChannel } from 'ssh2';
import { connectSsh } from '../../src/transport/ssh/ssh.ts';
import {
  RECEIVE_WINDOW_MAX_BYTES,
  RECEIVE_WINDOW_MIN_BYTES,
  widenReceiveWindow,
} from '../../src/transport/ssh/ssh-window.ts';
import type { Transport } from '../../src/transport/transport.ts';
import { SSHD_MISSING, startSshd } from '../support/sshd.ts';
import type { Sshd } from '../support/sshd.ts';

const started = await startSshd();
const skip = started === undefined ? SSHD_MISSING : false;
const sshd = started as Sshd; // where it is missing, every test below is skipped
after(() => started?.stop());

async function open(
  context: TestContext,
  command: string,
  onStderr?: (text: string) => void,
): Promise<Transport> {
  const { host, port, user } = sshd;
  const transport = await connectSsh({
    host,
    port,
    user,
    command,
    onStderr,
    knownHostsFiles: [sshd.knownHostsFile],
    identityFiles: [sshd.clientKey],
    agentSocket: false,
    configFile: 'none',
    ask: false,
  });
  context.after(() => transport.terminate());
  return transport;
}

/** Less than the window by the bytes that are read but not announced yet, so that a round always fits. */
const ROUND_BYTES = RECEIVE_WINDOW_MIN_BYTES - 1024 * 1024;
const ROUNDS = 4;

test(
  'an SSH host may send most of the window before it is read, again and again, and nothing is lost',
  {
    skip,
    timeout: 120_000,
  },
  async (context) => {
    let said = '';
    let wake = (): void => {};
    // The word after each round can only come once the host was allowed to send all of it.
    const command = `for n in 1 2 3 ${ROUNDS}; do head -c ${ROUND_BYTES} /dev/zero; printf $n >&2; done`;
    const transport = await open(context, command, (text) => {
      said += text;
      wake();
    });
    let received = 0;
    const readTo = async (end: number): Promise<void> => {
      while (received < end) {
        const chunk = transport.input.read(
          Math.min(end - received, transport.input.readableLength),
        ) as Buffer | null;
        if (chunk === null) await once(transport.input, 'readable');
        else received += chunk.length;
      }
    };
    for (let round = 1; round <= ROUNDS; round++) {
      while (!said.includes(String(round))) await new Promise<void>((resolve) => (wake = resolve));
      assert.ok(received <= (round - 1) * ROUND_BYTES, 'it was not read, and yet it came');
      await readTo(round * ROUND_BYTES);
    }
    transport.input.resume();
    await once(transport.input, 'end');
    assert.equal(received, ROUNDS * ROUND_BYTES);
    assert.equal((await transport.exited).status, 0);
  },
);

interface Line {
  readonly roundTripMs: number;
  readonly bytesPerMs: number;
}

/**
 * Runs a host that sends all that it may over a line of this kind, for some round trips. Returns the most
 * bytes that it was ahead.
 */
function mostAhead({ roundTripMs, bytesPerMs }: Line): number {
  let [clockMs, credit, most] = [0, RECEIVE_WINDOW_MIN_BYTES, 0];
  const channel = new PassThrough();
  const incoming = { window: credit };
  const sent = new Uint8Array(bytesPerMs);
  const grants: { atMs: number; bytes: number }[] = [];
  Object.assign(channel, {
    incoming,
    outgoing: { id: 0, state: 'open' },
    _client: {
      _protocol: {
        channelWindowAdjust: (_id: number, bytes: number) =>
          grants.push({ atMs: clockMs + roundTripMs, bytes }),
      },
    },
  });
  assert.ok(widenReceiveWindow(channel as unknown as ClientChannel, roundTripMs, () => clockMs));
  for (; clockMs < 2000 + roundTripMs * 20; clockMs++) {
    while (grants[0] !== undefined && grants[0].atMs <= clockMs) credit += grants.shift()?.bytes ?? 0;
    const bytes = Math.min(credit, bytesPerMs);
    credit -= bytes;
    incoming.window -= bytes;
    if (bytes > 0) channel.emit('data', sent.subarray(0, bytes));
    most = Math.max(most, incoming.window);
  }
  return most;
}

test('the window of a host nearby stays small, since more would wait in the buffer of sshd', () => {
  assert.equal(mostAhead({ roundTripMs: 1, bytesPerMs: 300_000 }), RECEIVE_WINDOW_MIN_BYTES);
  assert.equal(mostAhead({ roundTripMs: 0, bytesPerMs: 300_000 }), RECEIVE_WINDOW_MIN_BYTES);
});

test('the window of a host far away stays small if the line is slow', () => {
  assert.equal(mostAhead({ roundTripMs: 100, bytesPerMs: 6250 }), RECEIVE_WINDOW_MIN_BYTES);
});

test('the window of a host far away grows until the line is full, and no further than the limit', () => {
  const most = mostAhead({ roundTripMs: 100, bytesPerMs: 60_000 });
  assert.ok(most >= 6e6 && most <= 13e6, `${most} bytes for a line that holds 6 MB`);
  assert.equal(mostAhead({ roundTripMs: 300, bytesPerMs: 300_000 }), RECEIVE_WINDOW_MAX_BYTES);
});

test('a channel that is not as ssh2 1.17 makes it is left alone', () => {
  const channel = new PassThrough() as unknown as ClientChannel;
  assert.equal(widenReceiveWindow(channel, 1), false);
  assert.equal(channel.listenerCount('data'), 0);
});
