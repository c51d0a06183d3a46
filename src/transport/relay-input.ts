import { Readable } from 'node:stream';

/**
 * A Readable that passes on the bytes of `source`, and lets `conclude` decide how they end.
 *
 *     source   data data data end
 *     relay    data data data     … conclude(byteCount) → end, or 'error' with what it returned
 *
 * A pipe or an SSH channel ends before the reason is known (the exit status, the loss of the connection), so the relay
 * waits for it. It holds at most `highWaterMark` bytes beyond what `source` holds. If a reader gives up and destroys
 * the relay, `source` is drained, so that its end is still noticed.
 */
export function relayInput(
  source: Readable,
  conclude: (byteCount: number) => Promise<Error | undefined>,
  highWaterMark: number = 64 * 1024,
): Readable {
  let byteCount = 0;
  let concluding = false;
  const relay = new Readable({
    highWaterMark,
    read: () => void source.resume(),
    destroy: (error, callback) => {
      source.resume();
      callback(error);
    },
  });
  const finish = async (): Promise<void> => {
    if (concluding) return;
    concluding = true;
    const fault = await conclude(byteCount);
    if (fault === undefined) relay.push(null);
    else relay.destroy(fault);
  };
  source.on('data', (chunk: Buffer) => {
    byteCount += chunk.length;
    if (!relay.destroyed && !relay.push(chunk)) source.pause();
  });
  source.on('end', () => void finish());
  source.on('close', () => void finish());
  source.on('error', (error) => relay.destroy(error));
  // A reader gets the error; without a reader (yet) it must not crash the process.
  relay.on('error', () => {});
  return relay;
}
