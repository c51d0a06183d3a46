/**
 * `npm run soak` (`-- --minutes 30 --seed 7`): ends with the figures, or with status 1 and what was broken. The seed
 * repeats the choices, not the moments at which processes meet.
 */
import { parseArgs } from 'node:util';
import { startSshd } from '../support/sshd.ts';
import type { Latency } from './application.ts';
import type { ProcessFigures } from './soak.ts';
import { Soak } from './soak.ts';

const { values } = parseArgs({ options: { minutes: { type: 'string' }, seed: { type: 'string' } } });
const minutes = Number(values.minutes ?? 30);
const seed = Number(values.seed ?? Math.floor(Math.random() * 2 ** 32));
/** Steps until processes have all that they will have: statements, pools, compiled code. */
const WARM_UP_STEPS = 20;
const MB = 2 ** 20;
/** Beyond it nothing more is learned. */
const MAX_BROKEN = 10;

console.log(`seed ${seed}, ${minutes} minutes`);
const sshd = await startSshd();
const soak = await Soak.start({ seed, sshd });
const startedAt = performance.now();
const deadline = startedAt + minutes * 60_000;
let atStart: ProcessFigures[] = [];
const broken: string[] = [];
/** Asked to end, it ends with the figures so far. */
let stopped = false;
process.once('SIGTERM', () => (stopped = true));
try {
  let steps = 0;
  for (; steps < WARM_UP_STEPS || (performance.now() < deadline && !stopped); steps++) {
    if (steps === WARM_UP_STEPS) atStart = soak.processes();
    try {
      await soak.step(steps + 1);
    } catch (error) {
      broken.push(String(error));
      console.log(`BROKEN (seed ${seed}) ${String(error)}`);
      if (broken.length >= MAX_BROKEN) break;
    }
    if (steps % 50 === 49) console.error(`${steps + 1} steps, ${soak.syncs} syncs`);
  }
  await print(steps);
  await soak.end();
  console.log('left alone, every replica is equal to the origin, and every snapshot is what it was');
} catch (error) {
  console.error(`BROKEN (seed ${seed})`, error);
  process.exitCode = 1;
} finally {
  if (broken.length > 0) process.exitCode = 1;
  await soak.abandon();
  await sshd?.stop();
}

async function print(steps: number): Promise<void> {
  const { application, reader } = await soak.report();
  const atEnd = soak.processes();
  const ranMinutes = (performance.now() - startedAt) / 60_000;
  console.log(
    `${ranMinutes.toFixed(1)} minutes, ${steps} steps, ${soak.syncs} syncs, ${(soak.bytes / MB).toFixed(0)} MB between agents`,
  );
  console.log(
    `reads of replicas: ${reader.reads}, refused ${reader.refused}; of the origin: ${application.reads}`,
  );
  console.log('\n| fault | times | how the sync ended |\n| --- | --- | --- |');
  for (const [name, { times, outcomes }] of soak.figures) {
    const ends = Object.entries(outcomes).sort(([, a], [, b]) => b - a);
    console.log(`| ${name} | ${times} | ${ends.map(([how, count]) => `${how} ${count}`).join(', ')} |`);
  }
  const { outcomes = {}, restores, checks } = soak.backups ?? {};
  const ends = Object.entries(outcomes).map(([how, count]) => `${how} ${count}`);
  console.log(`\nbackups: ${ends.join(', ')}; restores compared: ${restores}; checks of all data: ${checks}`);
  console.log(
    '\n| writes of the application | number | median ms | 99 % ms | worst ms |\n| --- | --- | --- | --- | --- |',
  );
  printLatency('during a step with its syncs', application.sync);
  printLatency('between them', application.idle);
  console.log(
    '\n| process | RSS MB, start | end | descriptors, start | end |\n| --- | --- | --- | --- | --- |',
  );
  atEnd.forEach(({ name, rssBytes, descriptors }, i) => {
    const start = atStart[i];
    const megabytes = (bytes = 0): string => (bytes / MB).toFixed(0);
    console.log(
      `| ${name} | ${megabytes(start?.rssBytes)} | ${megabytes(rssBytes)} | ${start?.descriptors} | ${descriptors} |`,
    );
  });
}

function printLatency(when: string, { writes, p50Ms, p99Ms, worstMs }: Latency): void {
  console.log(`| ${when} | ${writes} | ${p50Ms.toFixed(1)} | ${p99Ms.toFixed(1)} | ${worstMs.toFixed(0)} |`);
}
