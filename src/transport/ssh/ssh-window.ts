import type { ClientChannel } from 'ssh2';

/**
 * Bytes that may be on their way from the host and waiting with us, together. ssh2 allows 2 MiB, at most 20 MB/s at a
 * round trip of 100 ms; one agent may have requested 8 MiB of pages.
 */
export const RECEIVE_WINDOW_BYTES: number = 16 * 1024 * 1024;

/** Refills in steps of this size: one message goes back for each step. */
const REFILL_BYTES = 1024 * 1024;

/** The parts of ssh2's channel (lib/Channel.js of 1.17.0, our pinned version) that its types lack. */
interface ChannelInternals {
  /** `window`: bytes that the host may still send, as ssh2 counts them. */
  incoming: { window: number };
  outgoing: { id: number; state: string };
  _client: { _protocol: { channelWindowAdjust: (id: number, bytes: number) => void } };
}

/**
 * Lets the host send {@link RECEIVE_WINDOW_BYTES} ahead, less what waits unread in the channel. ssh2's own refills
 * continue: they act below 1 MiB only, and both use the same counter. Returns false if the channel does not look as
 * this file expects; then it keeps ssh2's window, and is only slower.
 */
export function widenReceiveWindow(channel: ClientChannel): boolean {
  const internals = channel as unknown as Partial<ChannelInternals>;
  const { incoming, outgoing, _client: client } = internals;
  const { _protocol: protocol } = client ?? {};
  const isKnown =
    Number.isSafeInteger(incoming?.window) &&
    Number.isSafeInteger(outgoing?.id) &&
    typeof protocol?.channelWindowAdjust === 'function';
  if (!isKnown || incoming === undefined || outgoing === undefined) return false;
  const refill = (): void => {
    const room = RECEIVE_WINDOW_BYTES - incoming.window - channel.readableLength;
    if (room < REFILL_BYTES || (outgoing.state !== 'open' && outgoing.state !== 'eof')) return;
    incoming.window += room;
    protocol.channelWindowAdjust(outgoing.id, room);
  };
  refill();
  channel.on('data', refill);
  return true;
}
