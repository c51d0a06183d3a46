import type { ClientChannel } from 'ssh2';

/**
 * Bytes that the host may have on their way to us and waiting with us, together. ssh2 allows 2 MiB, which at a round
 * trip of 100 ms is 20 MB/s at best; the pages that one agent may have asked for are 8 MiB.
 */
export const RECEIVE_WINDOW_BYTES: number = 16 * 1024 * 1024;

/** Refilled in steps of this size, so that a message goes back for every so many that come. */
const REFILL_BYTES = 1024 * 1024;

/** What of ssh2's channel (lib/Channel.js of 1.17.0, the one version that we take) is needed beyond its types. */
interface ChannelInternals {
  /** `window`: bytes that the host may still send, as ssh2 counts them. */
  incoming: { window: number };
  outgoing: { id: number; state: string };
  _client: { _protocol: { channelWindowAdjust: (id: number, bytes: number) => void } };
}

/**
 * Lets the host send {@link RECEIVE_WINDOW_BYTES} ahead, less what waits unread in the channel. ssh2's own refills go
 * on: they act below 1 MiB only, and both count in the same place. False if the channel is not as this file knows it;
 * then it keeps ssh2's window, and is only slower.
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
