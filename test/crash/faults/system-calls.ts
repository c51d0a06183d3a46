import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Random } from '../../../fixtures/random.ts';
import type { Role } from '../../support/relay-near.ts';
import type { FaultOptions, FaultRow } from './group.ts';
import { includesFault, pick, Tally } from './group.ts';
import { inLanes } from './lanes.ts';
import { environmentOf, Scene, SCENE_KINDS } from './scene.ts';
import type { SceneKind } from './scene.ts';
import type { Call, TracedRole } from './traced-agent.ts';
import { callsIn, runTraced, straceFault } from './traced-agent.ts';

/** A fault in system calls, at one call at a time. */
export interface CallFault {
  readonly name: string;
  /** In the syntax of strace: `signal=SIGKILL`, `error=EIO`. */
  readonly effect: string;
  /** Only that call, or every later one of the thread as well. */
  readonly duration: 'once' | 'from then on';
  /** The calls that the fault meets. */
  readonly isMet: (call: Call) => boolean;
  readonly ends: readonly Role[];
}

/** Every call by which an agent could change a file, or wait for another process. */
const TRACED =
  'pwrite64,write,fsync,fdatasync,ftruncate,rename,renameat,renameat2,link,linkat,unlink,unlinkat,mkdir,fcntl,openat,pread64'.split(
    ',',
  );

/** The agent whose calls these are. */
interface Victim {
  readonly name: string;
  readonly kind: SceneKind;
  readonly role: TracedRole;
  readonly environment: NodeJS.ProcessEnv;
}

const IN_THREAD = { SQLSYNC_WRITER_THREAD_MIN_BYTES: '0' };

const VICTIMS: readonly Victim[] = [
  ...SCENE_KINDS.map((kind) => replicaAgent(kind, kind, environmentOf(kind))),
  replicaAgent('wal, written in a thread', 'wal', IN_THREAD),
  replicaAgent('rollback, written in a thread', 'rollback', IN_THREAD),
  { name: 'origin agent', kind: 'wal', role: 'pull', environment: {} },
  { name: 'origin agent, new replica', kind: 'new', role: 'pull', environment: {} },
  { name: 'local copy', kind: 'new', role: 'local', environment: {} },
];

function replicaAgent(name: string, kind: SceneKind, environment: NodeJS.ProcessEnv): Victim {
  return { name: `replica agent, ${name}`, kind, role: 'push', environment };
}

const isSpooling = ({ kind }: Victim): boolean => kind === 'staged' || kind === 'spooled';
const SPOOLING: readonly Victim[] = VICTIMS.filter(isSpooling);
const OTHERS: readonly Victim[] = VICTIMS.filter((victim) => !isSpooling(victim));

/** The short run tries some victims with some of the faults, each at one call. */
const SHORT_VICTIMS = 3;
const SHORT_FAULTS = 3;

/**
 * Each fault at every call of every agent; the short run picks some by the seed. strace counts calls within a
 * thread: if two threads come to the same number, the first one meets the fault.
 */
export async function* atEveryCall(
  faults: readonly CallFault[],
  options: FaultOptions,
): AsyncGenerator<FaultRow> {
  const folder = mkdtempSync(join(tmpdir(), 'sqlsync-calls-'));
  try {
    const fault = straceFault(folder);
    if (fault !== undefined) {
      process.emitWarning(fault);
      return;
    }
    const compiled = join(folder, 'compile-cache');
    const random = new Random(options.seed);
    // One victim that uses the spool is always among them.
    const victims = options.long
      ? VICTIMS
      : [...pick(SPOOLING, 1, random), ...pick(OTHERS, SHORT_VICTIMS - 1, random)];
    const work = victims.map((victim, i) => async () => {
      const environment = { ...victim.environment, NODE_COMPILE_CACHE: compiled };
      const inFolder = join(folder, `victim-${i}`);
      return await meetVictim({ ...victim, environment }, inFolder, faults, options);
    });
    for await (const rows of inLanes(options.long ? 2 : 1, work)) yield* rows;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

async function meetVictim(
  victim: Victim,
  folder: string,
  faults: readonly CallFault[],
  options: FaultOptions,
): Promise<FaultRow[]> {
  const { role, environment } = victim;
  const named = (fault: CallFault): string => `${fault.name}: ${victim.name}`;
  const isWanted = (fault: CallFault): boolean => role === 'local' || fault.ends.includes(role);
  const wanted = faults.filter((fault) => isWanted(fault) && includesFault(options, named(fault)));
  if (wanted.length === 0) return [];
  const scene = await Scene.make(folder, victim.kind);
  try {
    const calls = await callsOf(scene, victim);
    const random = new Random(options.seed);
    const rows: FaultRow[] = [];
    for (const fault of options.long ? wanted : pick(wanted, SHORT_FAULTS, random)) {
      const tally = new Tally(named(fault));
      const met = calls.filter(fault.isMet);
      for (const call of options.long ? met : pick(met, 1, random)) {
        await tally.add(`${call.name} number ${call.ordinal} (${call.text.slice(0, 200)})`, async () => {
          const when = `${call.ordinal}${fault.duration === 'once' ? '' : '+'}`;
          const inject = [`${call.name}:${fault.effect}:when=${when}`];
          const pair = scene.pair();
          const ended = await runTraced(pair, { role, trace: [call.name], inject, environment });
          // A mark that cannot be written costs one --overwrite, not the sync; a kill must never cost the mark.
          const mayBeUnmarked = !fault.effect.startsWith('signal');
          const state = await scene.judge(pair, ended, { mayBeUnmarked });
          scene.discard(pair);
          return `${ended.failure?.code ?? 'done'}, ${state}`;
        });
      }
      rows.push(tally);
    }
    return rows;
  } finally {
    await scene.end();
  }
}

/** The calls of the second undisturbed run: the first fills the cache of compiled modules. */
async function callsOf(scene: Scene, victim: Victim): Promise<Call[]> {
  await undisturbed(scene, victim);
  return callsIn(scene.folder, await undisturbed(scene, victim));
}

async function undisturbed(scene: Scene, { role, environment }: Victim): Promise<string> {
  const pair = scene.pair();
  const ended = await runTraced(pair, { role, trace: TRACED, environment });
  if (ended.failure !== undefined) throw ended.failure;
  await scene.judge(pair, ended);
  scene.discard(pair);
  return ended.log;
}
