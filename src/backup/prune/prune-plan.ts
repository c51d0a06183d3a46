import type { LiveObjects } from './live-objects.ts';
import type { KnownPack } from '../objects/trust.ts';
import type { StoreAccess, StoreContents } from '../files/store-files.ts';
import type { PruneOptions } from '../types.ts';

/** The part of a pack that may be garbage before it is repacked. */
const DEFAULT_MAX_UNUSED_RATIO = 0.2;

/**
 * Many packs below one of these sizes are merged into one: each backup of a small database puts its own pack. Several
 * sizes, so that an object is copied once per size and not by every prune.
 */
const SMALL_PACK_BYTES = [64 * 1024, 512 * 1024, 4 * 1024 * 1024];
const MANY_SMALL_PACKS = 16;

/** The work of a prune. */
export interface PrunePlan {
  /** Marked long enough ago: delete now. */
  readonly due: ReadonlySet<string>;
  /** Hold nothing needed, and need no mark because there is no grace period: delete now. */
  readonly atOnce: ReadonlySet<string>;
  /** To be marked now. */
  readonly toMark: ReadonlySet<string>;
  /** Packs, marked now or before, that hold something needed. */
  readonly toCopy: readonly KnownPack[];
  /** By object number, 1 for objects to copy out of such packs. */
  readonly needed: Uint8Array;
  /** Marked before, but not long enough ago. */
  readonly waiting: ReadonlySet<string>;
}

export function makePlan(
  access: StoreAccess,
  contents: StoreContents,
  live: LiveObjects,
  options: PruneOptions & { readonly now: number },
): PrunePlan {
  const { index, marks, packFiles } = contents;
  const graceMs = (options.graceSeconds ?? access.config.graceSeconds) * 1000;
  const { now } = options;
  const ages = new Map<string, number>();
  // For a pack that was marked twice, the first mark counts: nothing has relied on it since.
  for (const { time, packs } of marks) {
    for (const pack of packs) ages.set(pack, Math.max(ages.get(pack) ?? 0, ageOf(time, now)));
  }
  // A file that was put within the grace period may belong to a backup under way.
  const isSettled = (pack: string): boolean => {
    const file = packFiles.get(pack);
    return file === undefined || ageOf(file.modified, now) >= graceMs;
  };
  const packs = [...index.packs.values()];
  const unmarked = packs.filter(({ id }) => !ages.has(id));
  const ratios = live.ratios(unmarked);
  const minUsed = 1 - (options.maxUnusedRatio ?? DEFAULT_MAX_UNUSED_RATIO);
  const isWasteful = (pack: KnownPack): boolean => {
    const ratio = ratios.get(pack.id) ?? 0;
    return ratio === 0 || ratio < minUsed || !live.isSound(pack);
  };
  const wasteful = unmarked.filter((pack) => isSettled(pack.id) && isWasteful(pack));
  const orphans = [...packFiles.keys()].filter(
    (id) => !index.packs.has(id) && !ages.has(id) && isSettled(id),
  );
  const small = smallPacks(
    unmarked.filter((pack) => pack.present && isSettled(pack.id) && !isWasteful(pack)),
  );
  const toMark = new Set([...wasteful.map(({ id }) => id), ...orphans, ...small]);
  const needed = live.neededWith(unmarked.filter(({ id }) => !toMark.has(id)));
  const toCopy = packs.filter(
    ({ id, firstObject, objectCount }) =>
      (ages.has(id) || toMark.has(id)) && needed.subarray(firstObject, firstObject + objectCount).includes(1),
  );
  // Copies what such packs hold now; a later prune deletes the packs, since a reader may still use them.
  const inUse = new Set(toCopy.map(({ id }) => id));
  const due = new Set(
    [...ages].filter(([id, ageMs]) => ageMs >= graceMs && !inUse.has(id)).map(([id]) => id),
  );
  const waiting = new Set([...ages.keys()].filter((id) => !due.has(id)));
  const atOnce = new Set([...toMark].filter((id) => graceMs === 0 && !inUse.has(id)));
  for (const id of atOnce) toMark.delete(id);
  return { due, atOnce, toMark, toCopy, needed, waiting };
}

/** In ms; 0 if the place did not tell the time: such a file may have been put just now. */
export function ageOf(time: Date | undefined, now: number): number {
  return now - (time?.getTime() ?? now) || 0;
}

/** The ids of packs to merge. */
function smallPacks(packs: readonly KnownPack[]): string[] {
  return SMALL_PACK_BYTES.flatMap((limit, tier) => {
    const above = SMALL_PACK_BYTES[tier - 1] ?? 0;
    const alike = packs.filter(({ bytes }) => bytes > above && bytes <= limit);
    return alike.length < MANY_SMALL_PACKS ? [] : alike.map(({ id }) => id);
  });
}
