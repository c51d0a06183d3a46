import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Random } from '../../fixtures/random.ts';
import { message } from '../../protocol/encode.ts';
import type { Message, MessageName } from '../../protocol/messages.ts';
import { runFarAgent } from '../../src/sync/agents/far-agent.ts';
import { Restriction } from '../../src/sync/request/restriction.ts';
import { encodeBatchBytes } from '../../src/sync/link/compression.ts';
import { folderState } from '../cli/command.ts';
import { detached } from '../support/frames.ts';
import { runNear, runRelayed } from '../support/relay-near.ts';
import type { Pair, Role } from '../support/relay-near.ts';
import { REPLICA_KINDS, Scenario } from '../support/relay-scenario.ts';
import type { ReplicaKind } from '../support/relay-scenario.ts';
import { fuzzDecoders } from './decoders.ts';
import { hello, NONE, OPENING } from './opening.ts';
import { countTaken, runBetween, runScript } from './sessions.ts';
import type { Attack, Victim } from './sessions.ts';
import { storeLane, storeMessages } from './store-lane.ts';

export type { Attack } from './sessions.ts';

export const TARGETS = ['decoders', 'origin', 'replica', 'store'] as const;
export type Target = (typeof TARGETS)[number];

export interface Figures {
  readonly target: Target;
  readonly messages: number;
  readonly sessions: number;
  /** How sessions ended: codes of errors, or `done`. */
  readonly ends: Readonly<Record<string, number>>;
}

/** Sessions that run at the same time: each waits for files most of the time. */
const LANES = 8;
/** Above the time that counts as a hang. */
const IDLE_TIMEOUT_MS = 60_000;
const QUESTIONS: ReadonlySet<MessageName> = new Set([
  'getHashes',
  'getChildren',
  'getPages',
  'getOwners',
  'getRoot',
  'release',
  'progress',
]);

/** Databases and recorded conversations for a campaign, in a folder of their own. */
export class Campaign {
  readonly #folder: string;
  readonly #scenario: Scenario;
  /** Every message of real conversations. */
  readonly corpus: readonly Message[];

  static async make(): Promise<Campaign> {
    countTaken();
    const folder = mkdtempSync(join(tmpdir(), 'sqlsync-fuzz-'));
    mkdirSync(join(folder, 'scenario'));
    const scenario = await Scenario.make(join(folder, 'scenario'), { blobs: 6, pageSize: 4096 });
    const corpus: Message[] = [];
    for (const role of ['pull', 'push'] as const) {
      for (const kind of REPLICA_KINDS) {
        await runRelayed(role, scenario.pair(kind), ({ message: passing }) => {
          corpus.push(detached(passing));
          if (passing.type === 'pages') {
            corpus.push({ ...passing, ...encodeBatchBytes(detached(passing)['data' as never], 'zstd') });
          }
          return [passing];
        });
      }
    }
    corpus.push(message('getOwners', { id: 9, pages: [0, 1, 2] }), ...(await storeMessages(folder)));
    return new Campaign(folder, scenario, corpus);
  }

  private constructor(folder: string, scenario: Scenario, corpus: readonly Message[]) {
    this.#folder = folder;
    this.#scenario = scenario;
    this.corpus = corpus;
  }

  close(): void {
    rmSync(this.#folder, { recursive: true, force: true });
  }

  /**
   * Attacks one target until it has taken `count` mutated messages. Throws with the seed of the session that
   * found a fault.
   */
  async run(target: Target, seed: number, count: number, by?: Attack): Promise<Figures> {
    if (target === 'decoders') {
      const { messages, refused } = fuzzDecoders(this.corpus, seed, count);
      return { target, messages, sessions: messages, ends: { refused, taken: messages - refused } };
    }
    let [messages, sessions] = [0, 0];
    const ends: Record<string, number> = {};
    const lane = async (): Promise<void> => {
      const attack = by ?? this.#lane(target);
      while (messages < count) {
        const sessionSeed = (seed + sessions++) >>> 0;
        try {
          const end = await attack(new Random(sessionSeed));
          messages += end.mutated;
          ends[end.how] = (ends[end.how] ?? 0) + 1;
        } catch (error) {
          throw new Error(`${target}, seed ${sessionSeed}: ${String(error)}`, { cause: error });
        }
      }
    };
    await Promise.all(Array.from({ length: LANES }, lane));
    return { target, messages, sessions, ends };
  }

  #lane(target: Exclude<Target, 'decoders'>): Attack {
    if (target === 'store') return storeLane(mkdtempSync(join(this.#folder, 'store-')), this.corpus);
    return target === 'origin' ? this.#originLane() : this.#replicaLane();
  }

  /** A hostile replica agent asks an origin agent, near or far, for anything at all. */
  #originLane(): Attack {
    const { origin } = this.#scenario;
    const folder = join(origin, '..');
    const before = readFileSync(origin);
    const restriction = new Restriction({ folder, access: 'read', create: false });
    const questions = this.corpus.filter(({ type }) => QUESTIONS.has(type));
    const opens = this.corpus.filter((said) => said.type === 'open' && said.path === origin);
    return async (random) => {
      const isFar = random.chance(0.7);
      const far: Victim = (transport) =>
        runFarAgent(transport, { idleTimeoutMs: IDLE_TIMEOUT_MS, restriction });
      const near: Victim = (transport) => runNear(transport, 'push', { origin, replica: '/nowhere' });
      const script = [hello(), random.pick(opens), ...scriptOf(random, questions, this.corpus)];
      const { failure, mutated } = await runScript(isFar ? far : near, script, random, {
        mutationRate: random.pick([0.2, 0.6, 1]),
        spared: random.chance(0.9) ? OPENING : NONE,
      });
      assert.ok(readFileSync(origin).equals(before), 'the origin was changed');
      return { mutated, how: failure?.code ?? 'done' };
    };
  }

  /** A replica agent, near or far, receives the messages of an honest origin agent in a mutated form. */
  #replicaLane(): Attack {
    const pairs = new Map<ReplicaKind, Pair>();
    return async (random) => {
      const kind = random.pick(REPLICA_KINDS);
      const role = random.pick<Role>(['pull', 'push']);
      const pair = pairs.get(kind) ?? this.#scenario.pair(kind);
      pairs.set(kind, pair);
      const folder = join(pair.replica, '..');
      const restriction = new Restriction({ folder, access: 'write', create: true });
      const near: Victim = (transport) => runNear(transport, role, pair);
      const far: Victim = (transport) =>
        runFarAgent(transport, {
          idleTimeoutMs: IDLE_TIMEOUT_MS,
          ...(role === 'push' ? { restriction } : {}),
        });
      const [victim, honest] = role === 'pull' ? [near, far] : [far, near];
      const { failure, mutated } = await runBetween(victim, honest, random, {
        mutationRate: random.pick([0.3, 0.5, 0.9]),
        spared: random.chance(0.9) ? OPENING : NONE,
      });
      const state = this.#scenario.state(kind, pair);
      assert.ok(state === this.#scenario.before(kind) || state === 'new', `the replica is ${state}`);
      // A mutation may change nothing of importance; then the sync succeeds.
      if (state !== this.#scenario.before(kind) || Object.keys(folderState(folder)).length > 6) {
        pairs.delete(kind);
        rmSync(folder, { recursive: true });
      }
      return { mutated, how: `${failure?.code ?? 'done'}, replica ${state}` };
    };
  }
}

/** Mostly questions, and now and then any other message of a recorded conversation. */
function scriptOf(random: Random, questions: readonly Message[], corpus: readonly Message[]): Message[] {
  return Array.from({ length: random.integer(1, 30) }, () =>
    random.pick(random.chance(0.95) ? questions : corpus),
  );
}
