import assert from 'node:assert/strict';
import { readdirSync, rmSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { setImmediate as nextTick } from 'node:timers/promises';
import { Random } from '../../../fixtures/random.ts';
import type { SqlsyncError } from '../../../src/errors.ts';
import { runFarAgent } from '../../../src/sync/agents/far-agent.ts';
import { sha256File } from '../../support/compare.ts';
import { FrameLine } from '../../support/frame-line.ts';
import type { BadLine, LineVerdict, PassingFrame } from '../../support/frame-line.ts';
import { failureOf, runNear } from '../../support/relay-near.ts';
import type { Pair, Role } from '../../support/relay-near.ts';
import type { Direction } from '../../support/relay.ts';
import { Scenario } from '../../support/relay-scenario.ts';
import type { ReplicaKind } from '../../support/relay-scenario.ts';

/**
 * What a line can do to the bytes of a frame. `at` is a byte of it (a bit for `flipped`):
 *
 *     truncated   its first bytes, then the end of the stream
 *     gap         its first bytes, then the next frame as if nothing were missing
 *     dropped, duplicated, swapped   not at all; twice; after the next one
 *     flipped     one bit
 *     damaged     a run of bytes from elsewhere, which is what a bug in between makes of it
 *     stalled     its first bytes, then nothing, and no end
 *     slow        all of it, in pieces of a few bytes: the sync must succeed
 */
export const WIRE_FAULTS = [
  'truncated',
  'gap',
  'dropped',
  'duplicated',
  'swapped',
  'flipped',
  'damaged',
  'stalled',
  'slow',
] as const;
export type WireFault = (typeof WIRE_FAULTS)[number];

export interface WireCase {
  readonly role: Role;
  readonly kind: ReplicaKind;
  readonly direction: Direction;
  /** The number of the frame in its direction; 0 is the preamble. */
  readonly frame: number;
  readonly fault: WireFault;
  /** The place in the frame; beyond its end the fault does not happen. */
  readonly at: number;
}

export interface WireOutcome {
  /** Undefined if the run had no such frame. */
  readonly frameName: PassingFrame['name'] | undefined;
  /** False if the frame has no such byte. */
  readonly happened: boolean;
  /** The near side's outcome and the state of the replica, such as `CONNECTION_LOST, replica old`. */
  readonly text: string;
}

/** A line that swallowed something and has been quiet for so long is cut. */
const QUIET_MS = 100;
/** The time-out of a stalled line, which the agents' own clocks must end. */
const STALL_TIMEOUT_MS = 150;
const PATIENCE_MS = 20_000;

/** Names that may lie beside a replica after a failed sync; the next run goes on from a part file. */
const ALLOWED_AFTER_FAILURE =
  /^(replica\.db(-wal|-shm)?|\.replica\.db\.sqlsync|\.replica\.db\.sqlsync-(part|spool|lock))$/;
const ALLOWED_AFTER_SUCCESS = /^(replica\.db(-wal|-shm)?|\.replica\.db\.sqlsync)$/;

/** Syncs of one scenario over lines that fail in one way each, and the checks after each. */
export class WireFaults {
  readonly #scenario: Scenario;
  readonly #originHash: string;

  /** `folder` receives the databases. */
  static async make(folder: string): Promise<WireFaults> {
    return new WireFaults(await Scenario.make(folder, { blobs: 3, pageSize: 4096 }));
  }

  private constructor(scenario: Scenario) {
    this.#scenario = scenario;
    this.#originHash = sha256File(scenario.origin);
  }

  /** The frames of a sync over a sound line, preambles included. */
  async survey(role: Role, kind: ReplicaKind): Promise<SurveyedFrame[]> {
    const frames: SurveyedFrame[] = [];
    const pair = this.#scenario.pair(kind);
    await this.#run(role, pair, PATIENCE_MS, ({ direction, index, name, bytes }) => {
      frames.push({ direction, index, name, length: bytes.length });
      return { arrives: [bytes] };
    });
    rmSync(dirname(pair.replica), { recursive: true });
    return frames;
  }

  /** Runs one case and checks the invariant. Throws an AssertionError that names the case. */
  async try(wireCase: WireCase, seed: number): Promise<WireOutcome> {
    try {
      return await this.#try(wireCase, new Random(seed));
    } catch (error) {
      throw new Error(`${JSON.stringify(wireCase)}, seed ${seed}: ${String(error)}`, { cause: error });
    }
  }

  async #try(wireCase: WireCase, random: Random): Promise<WireOutcome> {
    const { role, kind, fault } = wireCase;
    const pair = this.#scenario.pair(kind);
    const bad = new OneFault(wireCase, random);
    const idleTimeoutMs = fault === 'stalled' ? STALL_TIMEOUT_MS : PATIENCE_MS;
    const { near, far } = await this.#run(role, pair, idleTimeoutMs, (frame) => bad.decide(frame));
    const state = this.#scenario.state(kind, pair);
    const { happened, frameName } = bad;
    this.#check(wireCase, { near, far, state, happened, frameName });
    const folder = dirname(pair.replica);
    assertOnly(folder, near === undefined ? ALLOWED_AFTER_SUCCESS : ALLOWED_AFTER_FAILURE);
    if (state !== 'new') {
      await this.#scenario.converge(kind, role, pair);
      assertOnly(folder, ALLOWED_AFTER_SUCCESS);
    }
    rmSync(folder, { recursive: true });
    const text = `${near?.code ?? 'done'}, replica ${state}`;
    return { frameName, happened, text };
  }

  async #run(
    role: Role,
    pair: Pair,
    idleTimeoutMs: number,
    decide: BadLine,
  ): Promise<{ near: SqlsyncError | undefined; far: SqlsyncError | undefined }> {
    const line = new FrameLine(decide, QUIET_MS);
    const [near, far] = await Promise.all([
      failureOf(runNear(line.near, role, pair, idleTimeoutMs)).finally(() => line.near.output.end()),
      failureOf(runFarAgent(line.far, { idleTimeoutMs })).finally(() => line.far.output.end()),
    ]);
    line.close();
    return { near, far };
  }

  #check(wireCase: WireCase, ended: Ended): void {
    const { near, far, state, happened, frameName } = ended;
    assert.equal(sha256File(this.#scenario.origin), this.#originHash, 'the origin was changed');
    if (!happened || wireCase.fault === 'slow') {
      assert.deepEqual([near, far, state], [undefined, undefined, 'new'], 'a sound line');
      return;
    }
    // Nobody listens any more behind the last frame of a direction.
    const noticed = near !== undefined || far !== undefined || frameName === 'close' || frameName === 'done';
    assert.ok(noticed, 'nobody noticed');
    if (near === undefined) assert.equal(state, 'new', 'success, and the replica is not the new snapshot');
    else if (state === 'new') {
      // The commit took place and its confirmation was lost: only a push can be in doubt, and says so.
      assert.equal(wireCase.role, 'push', `the replica is new and the near side says ${near.message}`);
      assert.match(near.hint ?? '', /may have been committed/);
    } else assert.equal(state, this.#scenario.before(wireCase.kind));
    for (const failure of [near, far]) {
      assert.notEqual(failure?.code, 'INTERNAL', `${failure?.message}`);
      if (failure !== undefined) assert.ok(failure.message.length > 10 && failure.message.length < 1000);
    }
  }
}

export interface SurveyedFrame {
  readonly direction: Direction;
  readonly index: number;
  readonly name: PassingFrame['name'];
  /** Bytes, header included. */
  readonly length: number;
}

interface Ended {
  readonly near: SqlsyncError | undefined;
  readonly far: SqlsyncError | undefined;
  readonly state: string;
  readonly happened: boolean;
  readonly frameName: PassingFrame['name'] | undefined;
}

/** The line of one case. */
class OneFault {
  frameName: PassingFrame['name'] | undefined;
  happened = false;
  readonly #case: WireCase;
  readonly #random: Random;
  #held: Buffer | undefined;

  constructor(wireCase: WireCase, random: Random) {
    this.#case = wireCase;
    this.#random = random;
  }

  readonly decide: BadLine = async (frame) => {
    const { direction, fault, frame: index } = this.#case;
    if (frame.direction !== direction) return { arrives: [frame.bytes] };
    if (fault === 'slow') return this.#slowly(frame);
    if (this.#held !== undefined) {
      const held = this.#held;
      this.#held = undefined;
      return { arrives: [frame.bytes, held] };
    }
    if (frame.index !== index) return { arrives: [frame.bytes] };
    this.frameName = frame.name;
    const bits = fault === 'flipped' ? 8 : 1;
    if (this.#case.at >= frame.bytes.length * bits) return { arrives: [frame.bytes] };
    this.happened = true;
    return this.#tamper(frame.bytes);
  };

  #tamper(bytes: Buffer): LineVerdict {
    const { fault, at } = this.#case;
    switch (fault) {
      case 'truncated':
        return { arrives: [bytes.subarray(0, at)], and: 'ends' };
      case 'gap':
        return at === 0 ? { arrives: [] } : { arrives: [bytes.subarray(0, at)] };
      case 'dropped':
        return { arrives: [] };
      case 'duplicated':
        return { arrives: [bytes, bytes] };
      case 'swapped':
        this.#held = bytes;
        return { arrives: [] };
      case 'flipped': {
        const flipped = Buffer.from(bytes);
        flipped[at >> 3] = (flipped[at >> 3] ?? 0) ^ (1 << (at & 7));
        return { arrives: [flipped] };
      }
      case 'damaged': {
        const damaged = Buffer.from(bytes);
        const noise = this.#random.bytes(this.#random.integer(1, 64));
        noise[0] = (damaged[at] ?? 0) ^ 0x55;
        noise.copy(damaged, at);
        return { arrives: [damaged] };
      }
      case 'stalled':
        return { arrives: [bytes.subarray(0, at)], and: 'silent' };
      case 'slow': // Not part of a frame.
        return { arrives: [bytes] };
    }
  }

  async #slowly(frame: PassingFrame): Promise<LineVerdict> {
    this.frameName = frame.name;
    this.happened = true;
    const pieces: Buffer[] = [];
    for (let from = 0; from < frame.bytes.length;) {
      const length = this.#random.integer(1, 40);
      pieces.push(frame.bytes.subarray(from, from + length));
      from += length;
    }
    await nextTick();
    return { arrives: pieces };
  }
}

function assertOnly(folder: string, allowed: RegExp): void {
  const others = readdirSync(folder).filter((name) => !allowed.test(name) && !/-copy-/.test(name));
  assert.deepEqual(others, [], `left in ${join(folder)}`);
}
