/**
 * `npm run soak` (`-- --minutes 30 --seed 7`): two thirds of the time one fault after another, and then the
 * storm, where everything happens at once (`--only steps`, `--only storm`). `--only follow` lets replicas follow
 * instead, `--only stores` has backups into stores elsewhere, at services that are slow and fail, and `--only service`
 * tries the service (`--large 2`: two databases of 1 GB). It ends with the figures; if a promise was broken, also with its name and status 1. The seed repeats the choices, not the moments
 * at which processes meet.
 */
import { parseArgs } from 'node:util';
import { startSshd } from '../support/sshd.ts';
import { soakFollow } from './follow.ts';
import { soakService } from './service/run-trial.ts';
import type { Latency } from './application.ts';
import type { ProcessFigures } from './soak.ts';
import { Soak } from './soak.ts';
import { StoresSoak } from './stores/stores.ts';
import type { CommandFigures } from './storm/disturbed-commands.ts';
import { Storm } from './storm/storm.ts';

const { values } = parseArgs({
  options: {
    minutes: { type: 'string' },
    seed: { type: 'string' },
    only: { type: 'string' },
    large: { type: 'string' },
  },
});
const minutes = Number(values.minutes ?? 30);
const isStormy = values.only === 'storm';
const hasStorm = values.only === undefined || isStormy;
const stormMinutes = isStormy ? minutes : hasStorm ? minutes / 3 : 0;
const seed = Number(values.seed ?? Math.floor(Math.random() * 2 ** 32));
/** How long each answer of a store's service takes. */
const SERVICE_DELAY_MS = 100;
/** Steps until the processes have all that they will have: statements, pools, compiled code. */
const WARM_UP_STEPS = 20;
const MB = 2 ** 20;
/** More growth than this proves nothing more. */
const MAX_BROKEN = 10;

console.log(`seed ${seed}, ${minutes} minutes`);
const broken: string[] = [];
/** SIGINT and SIGTERM end the run with the figures so far. */
let stopped = false;
process.once('SIGTERM', () => (stopped = true));
if (values.only === 'follow') await soakFollow(minutes, seed, report);
else if (values.only === 'stores') await runStores(minutes);
else if (values.only === 'service') await runService();
else if (stormMinutes < minutes) await runSteps(minutes - stormMinutes);
if (stormMinutes > 0 && !stopped) await runStorm(stormMinutes);
if (broken.length > 0) process.exitCode = 1;

function report(text: string): void {
  broken.push(text);
  console.log(`BROKEN (seed ${seed}) ${text}`);
}

async function runSteps(ofMinutes: number): Promise<void> {
  const sshd = await startSshd();
  const soak = await Soak.start({ seed, sshd });
  const startedAt = performance.now();
  const deadline = startedAt + ofMinutes * 60_000;
  let atStart: ProcessFigures[] = [];
  try {
    let steps = 0;
    for (; steps < WARM_UP_STEPS || (performance.now() < deadline && !stopped); steps++) {
      if (steps === WARM_UP_STEPS) atStart = soak.processes();
      await soak.step(steps + 1).catch((error: unknown) => report(String(error)));
      if (broken.length >= MAX_BROKEN) break;
      if (steps % 50 === 49) console.error(`${steps + 1} steps, ${soak.syncs} syncs`);
    }
    await print({ soak, steps, startedAt, atStart });
    await soak.end();
    console.log('left alone, every replica is equal to the origin, and every snapshot is what it was');
  } catch (error) {
    report(error instanceof Error ? (error.stack ?? error.message) : String(error));
  } finally {
    await soak.abandon();
    await sshd?.stop();
  }
}

async function runStorm(ofMinutes: number): Promise<void> {
  const storm = new Storm({ seed });
  process.once('SIGTERM', () => storm.stop());
  try {
    await storm.run(ofMinutes * 60_000);
    for (const breach of storm.broken) report(`storm: ${breach}`);
    console.log(
      `\nthe storm: ${ofMinutes.toFixed(1)} minutes, ${storm.stateNow(storm.origin)} states of the origin`,
    );
    console.log(`states seen in replicas: ${storm.reads}, reads refused ${storm.refusedReads}`);
    printCommands(storm.figures);
  } finally {
    await storm.end();
  }
}

async function runStores(ofMinutes: number): Promise<void> {
  const soak = new StoresSoak({ seed, delayMs: SERVICE_DELAY_MS });
  process.once('SIGTERM', () => soak.stop());
  try {
    await soak.run(ofMinutes * 60_000);
    for (const breach of soak.broken) report(`stores: ${breach}`);
    const places = soak.places.map(({ name }) => name).join('; ');
    console.log(`\n${ofMinutes.toFixed(1)} minutes of stores (${places}); ${SERVICE_DELAY_MS} ms an answer`);
    console.log(
      `failures injected: ${await soak.failures()}; restores compared: ${soak.compared}; broken: ${soak.broken.length}`,
    );
    printCommands(soak.figures);
  } finally {
    await soak.end();
  }
}

async function runService(): Promise<void> {
  try {
    const figures = await soakService({ minutes, seed, large: Number(values.large ?? 0) }, report);
    console.log(`\n${minutes.toFixed(1)} minutes of the service; broken: ${broken.length}`);
    for (const line of figures) console.log(line);
  } catch (error) {
    report(error instanceof Error ? (error.stack ?? error.message) : String(error));
  }
}

function printCommands(figures: CommandFigures): void {
  console.log('\n| command | times | how it ended |\n| --- | --- | --- |');
  for (const [kind, outcomes] of figures) {
    const times = Object.values(outcomes).reduce((sum, count) => sum + count, 0);
    console.log(`| ${kind} | ${times} | ${endsOf(outcomes)} |`);
  }
}

function endsOf(outcomes: Readonly<Record<string, number>>): string {
  const ends = Object.entries(outcomes).sort(([, a], [, b]) => b - a);
  return ends.map(([how, count]) => `${how} ${count}`).join(', ');
}

interface StepsDone {
  readonly soak: Soak;
  readonly steps: number;
  readonly startedAt: number;
  readonly atStart: readonly ProcessFigures[];
}

async function print({ soak, steps, startedAt, atStart }: StepsDone): Promise<void> {
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
    console.log(`| ${name} | ${times} | ${endsOf(outcomes)} |`);
  }
  const { outcomes = {}, restores, checks } = soak.backups ?? {};
  console.log(
    `\nbackups: ${endsOf(outcomes)}; restores compared: ${restores}; checks of all data: ${checks}`,
  );
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
