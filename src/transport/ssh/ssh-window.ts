import type { ClientChannel } from 'ssh2';

/**
 * The most bytes that may be on their way from the host and waiting with us, together: 160 MB/s at a round trip of 100
 * ms. One agent may have requested 8 MiB of pages.
 */
export const RECEIVE_WINDOW_MAX_BYTES: number = 16 * 1024 * 1024;

/** What a window begins with, as ssh2 itself has it. */
export const RECEIVE_WINDOW_MIN_BYTES: number = 2 * 1024 * 1024;

/** Refills in steps of this part of the window: one message goes back for each step. */
const REFILLS = 4;

/** The rate is measured over at least this time, so that one burst does not count as a rate. */
const MEASURED_MS = 50;

/** The parts of ssh2's channel (lib/Channel.js of 1.17.0, our pinned version) that its types lack. */
interface ChannelInternals {
  /** `window`: bytes that the host may still send, as ssh2 counts them. */
  incoming: { window: number };
  outgoing: { id: number; state: string };
  _client: { _protocol: { channelWindowAdjust: (id: number, bytes: number) => void } };
}

/**
 * Lets the host send as far ahead as the round trip needs: twice of what arrives in one, less what waits unread in the
 * channel. A window that is larger than that fills sshd's buffer instead of the line, and sshd copies all of that buffer
 * each time it grows by 32 KiB.
 *
 * ssh2's own refills continue: they act below 1 MiB only, and both use the same counter. Returns false if the channel
 * does not look as this file expects; then it keeps ssh2's window, and is only slower.
 */
export function widenReceiveWindow(
  channel: ClientChannel,
  roundTripMs: number,
  now: () => number = () => performance.now(),
): boolean {
  const internals = channel as unknown as Partial<ChannelInternals>;
  const { incoming, outgoing, _client: client } = internals;
  const { _protocol: protocol } = client ?? {};
  const isKnown =
    Number.isSafeInteger(incoming?.window) &&
    Number.isSafeInteger(outgoing?.id) &&
    typeof protocol?.channelWindowAdjust === 'function';
  if (!isKnown || incoming === undefined || outgoing === undefined) return false;
  let window = RECEIVE_WINDOW_MIN_BYTES;
  let measuredSince = now();
  let measuredBytes = 0;
  const measure = (bytes: number): void => {
    measuredBytes += bytes;
    const passedMs = now() - measuredSince;
    if (passedMs < Math.max(MEASURED_MS, roundTripMs)) return;
    const needed = (2 * measuredBytes * roundTripMs) / passedMs;
    window = Math.min(Math.max(window, Math.ceil(needed)), RECEIVE_WINDOW_MAX_BYTES);
    measuredSince += passedMs;
    measuredBytes = 0;
  };
  channel.on('data', (bytes: Uint8Array) => {
    measure(bytes.length);
    const room = window - incoming.window - channel.readableLength;
    if (room < window / REFILLS || (outgoing.state !== 'open' && outgoing.state !== 'eof')) return;
    incoming.window += room;
    protocol.channelWindowAdjust(outgoing.id, room);
  });
  return true;
}
