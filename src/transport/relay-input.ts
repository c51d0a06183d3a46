import { Readable } from 'node:stream';

/**
 * A Readable that passes on the bytes of `source` and lets `conclude` say how they end.
 *
 *     source   data data data end
 *     relay    data data data     … conclude(byteCount) → end, or 'error' with what it returned
 *
 * The end of a pipe or an SSH channel comes before it is known why it ended (the exit status, the loss of the
 * connection), hence the wait. Not more than `highWaterMark` bytes are held beyond what `source` holds. A reader
 * that gives up (destroys the relay) leaves `source` to be drained, so that its end is still noticed.
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
  // Whoever reads gets the error; where nobody reads (yet), it must not bring the process down.
  relay.on('error', () => {});
  return relay;
}
