import { join } from 'node:path';
import { Random } from '../../../../fixtures/random.ts';
import type { FaultOptions, FaultRow } from '../group.ts';
import { includesFault, pick, Tally } from '../group.ts';
import { inLanes } from '../lanes.ts';
import { callsIn } from '../traced-agent.ts';
import type { Call } from '../traced-agent.ts';
import { judgeJob, prepareJob, runJob, STORE_JOBS } from './jobs.ts';
import type { StoreJob } from './jobs.ts';
import { StoreScene } from './scene.ts';

/** A fault in the system calls of a command and its agent, at one call at a time. */
interface CallFault {
  readonly name: string;
  /** In the syntax of strace. */
  readonly effect: string;
  readonly duration: 'once' | 'from then on';
  readonly isMet: (call: Call) => boolean;
}

const CONTENT: ReadonlySet<string> = new Set(['write', 'pwrite64', 'fsync', 'fdatasync', 'ftruncate']);
const NAMES: ReadonlySet<string> = new Set(['mkdir', 'link', 'rename', 'unlink', 'rmdir', 'unlinkat']);
const READS: ReadonlySet<string> = new Set(['read', 'pread64', 'getdents64']);
const TRACED = [...CONTENT, ...NAMES, ...READS, 'openat'];

const creates = ({ name, text }: Call): boolean => name === 'openat' && text.includes('O_CREAT');
const names = (call: Call): boolean => NAMES.has(call.name) || creates(call);
const changes = (call: Call): boolean => CONTENT.has(call.name) || names(call);
const takesRoom = (call: Call): boolean => changes(call) && !call.name.startsWith('unlink');
const isLink = ({ name, ordinal }: Call): boolean => name === 'link' && ordinal === 1;
const reads = ({ name }: Call): boolean => READS.has(name);
const isKill = ({ effect }: CallFault): boolean => effect.startsWith('signal');

const FAULTS: readonly CallFault[] = [
  { name: 'kill -9 at a change', effect: 'signal=SIGKILL', duration: 'once', isMet: changes },
  { name: 'EIO of a change, once', effect: 'error=EIO', duration: 'once', isMet: changes },
  { name: 'EDQUOT of what takes room, once', effect: 'error=EDQUOT', duration: 'once', isMet: takesRoom },
  { name: 'ENOSPC of what takes room', effect: 'error=ENOSPC', duration: 'from then on', isMet: takesRoom },
  { name: 'EROFS of a name', effect: 'error=EROFS', duration: 'from then on', isMet: names },
  // As on a file system without hard links.
  { name: 'EPERM of every link', effect: 'error=EPERM', duration: 'from then on', isMet: isLink },
  { name: 'EIO of a read, once', effect: 'error=EIO', duration: 'once', isMet: reads },
];

/** The short run tries so many commands with so many faults, each at one call. */
const SHORT_JOBS = 2;
const SHORT_FAULTS = 1;

/** Each fault at every call of every command that changes or reads a file of the store or the target. */
export async function* atEveryCall(folder: string, options: FaultOptions): AsyncGenerator<FaultRow> {
  const random = new Random(options.seed);
  const jobs = options.long ? STORE_JOBS : pick(STORE_JOBS, SHORT_JOBS, random);
  const work = jobs.map((job, i) => async () => meetJob(job, join(folder, `calls-${i}`), options));
  for await (const rows of inLanes(options.long ? 2 : 1, work)) yield* rows;
}

async function meetJob(job: StoreJob, folder: string, options: FaultOptions): Promise<FaultRow[]> {
  const named = (fault: CallFault): string => `${fault.name}: ${job.name}`;
  const wanted = FAULTS.filter((fault) => includesFault(options, named(fault)));
  if (wanted.length === 0) return [];
  const random = new Random(options.seed);
  const scene = await StoreScene.make(folder, [job.kind]);
  try {
    const calls = await callsOf(scene, job, options.long ? 2 : 1);
    const possible = wanted.filter((fault) => calls.some(fault.isMet));
    const rows: FaultRow[] = [];
    for (const fault of options.long ? possible : pick(possible, SHORT_FAULTS, random)) {
      const tally = new Tally(named(fault));
      const met = calls.filter(fault.isMet);
      for (const call of options.long ? met : pick(met, 1, random)) {
        const where = `${call.name} number ${call.ordinal} (${call.text.slice(0, 200)})`;
        await tally.add(where, () => meetCall(scene, job, fault, call));
      }
      rows.push(tally);
    }
    return rows;
  } finally {
    await scene.end();
  }
}

async function meetCall(scene: StoreScene, job: StoreJob, fault: CallFault, call: Call): Promise<string> {
  const run = prepareJob(scene, job);
  const when = `${call.ordinal}${fault.duration === 'once' ? '' : '+'}`;
  const inject = [`${call.name}:${fault.effect}:when=${when}`];
  const end = await runJob(scene, job, run, { trace: [call.name], inject });
  // strace counts within a thread: a call on a file or a pipe of Node.js itself may have the same number, and
  // Node.js may die of it.
  const mayBeKilled = isKill(fault) || isMetElsewhere(end.log, run.folder);
  const outcome = await judgeJob(scene, job, run, end, mayBeKilled);
  scene.discard(run);
  return mayBeKilled && !isKill(fault) ? 'met a file or a pipe of Node.js' : outcome;
}

function isMetElsewhere(log: string, folder: string): boolean {
  const injected = log.split('\n').filter((line) => line.includes('(INJECTED)'));
  return injected.some((line) => !line.includes(folder));
}

/** The calls of an undisturbed run; the second, if any, finds Node.js's compile cache filled by the first. */
async function callsOf(scene: StoreScene, job: StoreJob, times: number): Promise<Call[]> {
  for (let runs = 1; ; runs++) {
    const run = prepareJob(scene, job);
    const end = await runJob(scene, job, run, { trace: TRACED });
    await judgeJob(scene, job, run, end, false);
    scene.discard(run);
    if (end.outcome !== 'done') throw new Error(`${job.name}: ${end.outcome} ${String(end.last['message'])}`);
    if (runs === times) return callsIn(run.folder, end.log);
  }
}
