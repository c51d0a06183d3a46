/**
 * The long run: `npm run fuzz` (`-- --target replica --seed 7 --messages 1000` repeats a part of it). Prints
 * its counts; on a fault it ends with a status other than 0, and prints the seed.
 */
import { parseArgs } from 'node:util';
import { Campaign, TARGETS } from './campaign.ts';
import type { Target } from './campaign.ts';

/** Mutated messages by default: a million and more together. */
const MESSAGES: Record<Target, number> = {
  decoders: 1_000_000,
  origin: 150_000,
  replica: 50_000,
  store: 50_000,
};

/** Above the memory of the process before the first attack. */
const MAX_GROWTH_BYTES = 768 * 1024 * 1024;

const { values } = parseArgs({
  options: {
    target: { type: 'string' },
    seed: { type: 'string' },
    messages: { type: 'string' },
  },
});
const seed = Number(values.seed ?? Math.floor(Math.random() * 2 ** 32));
const campaign = await Campaign.make();
try {
  const rssBefore = process.memoryUsage.rss();
  for (const target of TARGETS) {
    if (values.target !== undefined && values.target !== target) continue;
    const startedAt = performance.now();
    const figures = await campaign.run(target, seed, Number(values.messages ?? MESSAGES[target]));
    const seconds = ((performance.now() - startedAt) / 1000).toFixed(0);
    console.log(`${JSON.stringify(figures)}, seed ${seed}, ${seconds} s`);
  }
  const peak = process.resourceUsage().maxRSS * 1024;
  console.log(
    `memory: at most ${Math.round(peak / 2 ** 20)} MB, ${Math.round(rssBefore / 2 ** 20)} MB before`,
  );
  if (peak > rssBefore + MAX_GROWTH_BYTES) throw new Error('more memory than may be');
} finally {
  campaign.close();
}
