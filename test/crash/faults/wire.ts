import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Random } from '../../../fixtures/random.ts';
import { FRAME_HEADER_BYTES } from '../../../protocol/limits.ts';
import type { Role } from '../../support/relay-near.ts';
import { REPLICA_KINDS } from '../../support/relay-scenario.ts';
import type { ReplicaKind } from '../../support/relay-scenario.ts';
import { includesFault, Tally } from './group.ts';
import type { FaultOptions, FaultRow } from './group.ts';
import { WIRE_FAULTS, WireFaults } from './wire-faults.ts';
import type { SurveyedFrame, WireFault } from './wire-faults.ts';

/** Cases of each fault, role and kind of replica in the short run; a stalled line costs a third of a second. */
const SHORT_CASES = 3;
const SHORT_STALLS = 1;

/** The long run damages every bit and byte up to here, and some of those behind, which the checksum covers. */
const DENSE_BYTES = FRAME_HEADER_BYTES + 48;
const SPARSE_CASES = 60;

/**
 * The long run truncates frames at every byte up to here, and in the middle of a batch of pages at every so
 * manieth.
 */
const EVERY_BYTES = 1024;
const INNER_STRIDE = 61;

/** A line that truncates, loses, repeats, reorders, damages and holds back frames, in pulls and in pushes. */
export async function* wire(options: FaultOptions): AsyncIterable<FaultRow> {
  const folder = mkdtempSync(join(tmpdir(), 'sqlsync-wire-'));
  try {
    const faults = await WireFaults.make(folder);
    for (const fault of WIRE_FAULTS) {
      for (const role of ['pull', 'push'] as const) {
        const tally = new Tally(`frame ${fault}: ${role}`);
        if (!includesFault(options, tally.fault)) continue;
        for (const kind of REPLICA_KINDS) await tryAll(faults, tally, { fault, role, kind }, options);
        yield tally;
      }
    }
  } finally {
    rmSync(folder, { recursive: true });
  }
}

interface Group {
  readonly fault: WireFault;
  readonly role: Role;
  readonly kind: ReplicaKind;
}

async function tryAll(faults: WireFaults, tally: Tally, group: Group, options: FaultOptions): Promise<void> {
  const { role, kind, fault } = group;
  const random = new Random(options.seed ^ (WIRE_FAULTS.indexOf(fault) * 64 + REPLICA_KINDS.indexOf(kind)));
  const frames = await faults.survey(role, kind);
  const places = options.long
    ? frames.flatMap((frame) => placesIn(frame, fault, random).map((at) => ({ frame, at })))
    : somePlaces(frames, fault, random);
  for (const { frame, at } of places) {
    const { direction, index, name } = frame;
    const seed = random.uint32();
    await tally.add(`${kind} replica, ${direction} ${name}`, async () => {
      const { text } = await faults.try({ role, kind, direction, frame: index, fault, at }, seed);
      return text;
    });
  }
}

interface Place {
  readonly frame: SurveyedFrame;
  readonly at: number;
}

function somePlaces(frames: readonly SurveyedFrame[], fault: WireFault, random: Random): Place[] {
  const usable = frames.map((frame) => ({ frame, places: placesIn(frame, fault, random) }));
  const choices = usable.filter(({ places }) => places.length > 0);
  return Array.from({ length: fault === 'stalled' ? SHORT_STALLS : SHORT_CASES }, () => {
    const { frame, places } = random.pick(choices);
    return { frame, at: random.pick(places) };
  });
}

/** The places in a frame that the long run tries. */
function placesIn(frame: SurveyedFrame, fault: WireFault, random: Random): number[] {
  const sparse = (unit: number): number[] => [
    ...range(0, Math.min(frame.length, DENSE_BYTES) * unit),
    ...(frame.length <= DENSE_BYTES
      ? []
      : Array.from({ length: SPARSE_CASES }, () =>
          random.integer(DENSE_BYTES * unit, frame.length * unit - 1),
        )),
  ];
  const inner = random.integer(0, INNER_STRIDE - 1);
  switch (fault) {
    case 'truncated':
      return range(0, frame.length).filter(
        (at) => at < EVERY_BYTES || at % INNER_STRIDE === inner || at > frame.length - DENSE_BYTES,
      );
    case 'dropped':
    case 'duplicated':
    case 'swapped':
      return [0];
    case 'flipped':
      return sparse(8);
    case 'gap':
    case 'damaged':
      return sparse(1);
    case 'stalled':
      return [0, 5, frame.length - 1];
    case 'slow':
      return frame.index === 0 ? [0] : [];
  }
}

function range(from: number, to: number): number[] {
  return Array.from({ length: Math.max(0, to - from) }, (_, i) => from + i);
}
