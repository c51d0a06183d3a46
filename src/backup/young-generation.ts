import { setFlagsFromString } from 'node:v8';

/**
 * Keeps the memory for new objects as small as it is, for this process: V8 lets it grow to 128 MiB on a large machine,
 * and work on a store, whose memory lies mostly outside the heap, gains nothing by that. V8 reads this flag each time
 * it would grow. For processes of our own only.
 */
export function keepYoungGenerationSmall(): void {
  setFlagsFromString('--semi-space-growth-factor=1');
}
