import assert from 'node:assert/strict';
import { after, describe, test } from 'node:test';
import type { TestContext } from 'node:test';
import { Campaign, TARGETS } from './campaign.ts';
import type { Attack, Target } from './campaign.ts';
import { runScript } from './sessions.ts';

/** Mutated messages; `npm run fuzz` runs more than a million. */
const MESSAGES: Record<Target, number> = { decoders: 20_000, origin: 400, replica: 200, store: 600 };

const MAX_GROWTH_BYTES = 512 * 1024 * 1024;

const seed = Number(process.env['SQLSYNC_FUZZ_SEED'] ?? Math.floor(Math.random() * 2 ** 32));
const campaign = await Campaign.make();
after(() => campaign.close());

describe(`mutated messages (SQLSYNC_FUZZ_SEED=${seed})`, () => {
  for (const target of TARGETS) {
    test(`mutated messages neither crash nor hang the ${target}, nor change what they must not, nor take much memory`, async (t: TestContext) => {
      const before = process.memoryUsage.rss();
      const figures = await campaign.run(target, seed, MESSAGES[target]);
      assert.ok(figures.messages >= MESSAGES[target]);
      assert.ok(Object.keys(figures.ends).length > 1, 'the mutations all had the same effect');
      const peak = process.resourceUsage().maxRSS * 1024;
      assert.ok(peak < Math.max(before, 256 * 2 ** 20) + MAX_GROWTH_BYTES, `${peak} bytes`);
      t.diagnostic(JSON.stringify(figures));
    });
  }
});

test('a campaign fails, with its seed, if an agent fails in an unexpected way', async () => {
  const bug = (): Promise<never> => Promise.reject(new TypeError('x is not a function'));
  const attack: Attack = async (random) => {
    const { mutated } = await runScript(bug, [], random, { mutationRate: 1, spared: new Set() });
    return { mutated, how: 'done' };
  };
  await assert.rejects(campaign.run('origin', 7, 10, attack), /origin, seed 7: .*no SqlsyncError/);
});
