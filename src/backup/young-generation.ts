import { setFlagsFromString } from 'node:v8';

/**
 * Keeps the memory for new objects of this process at its initial size: V8 lets it grow to 128 MiB on a large machine,
 * and work on a store, whose memory lies mostly outside the heap, gains nothing from that. V8 reads this flag each time
 * it would grow. Only for sqlsync's own processes.
 */
export function keepYoungGenerationSmall(): void {
  setFlagsFromString('--semi-space-growth-factor=1');
}
