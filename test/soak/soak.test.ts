import { test } from 'node:test';
import { Soak } from './soak.ts';

/** `npm run soak` takes half an hour. */
const STEPS = 10;
const skip = process.env['SQLSYNC_SLOW_TESTS'] !== '1' && 'SQLSYNC_SLOW_TESTS=1 npm test runs it';

const seed = Number(process.env['SQLSYNC_FAULT_SEED'] ?? Math.floor(Math.random() * 2 ** 32));

test(
  `replicas are one snapshot each while writers, readers and syncs go on and things go wrong (SQLSYNC_FAULT_SEED=${seed})`,
  { skip },
  async () => {
    const soak = await Soak.start({ seed, sshd: undefined });
    try {
      for (let step = 1; step <= STEPS; step++) await soak.step(step);
      await soak.end();
    } finally {
      await soak.abandon();
    }
  },
);
