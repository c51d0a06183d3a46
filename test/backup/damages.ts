import type { Random } from '../../fixtures/random.ts';

/** What becomes of a file of a store; undefined: it is gone. */
export type ApplyDamage = (bytes: Uint8Array, random: Random) => Uint8Array | undefined;

export const DAMAGES: Readonly<Record<string, ApplyDamage>> = {
  'a flipped bit': (bytes, random) => {
    const flipped = new Uint8Array(bytes);
    const at = random.integer(0, bytes.length - 1);
    flipped[at] = (flipped[at] as number) ^ (1 << random.integer(0, 7));
    return flipped;
  },
  'a file that was cut': (bytes, random) => bytes.slice(0, random.integer(0, bytes.length - 1)),
  'a file that is missing': () => undefined,
};
