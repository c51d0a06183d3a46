import { realpathSync } from 'node:fs';
import { basename, dirname, join, posix } from 'node:path';
import { SqlsyncError, sanitizeLine } from '../../errors.ts';
import { formatLocation, parseLocation } from '../../transport/location.ts';
import { placeId } from '../state/state.ts';
import type { EntryState } from '../state/state.ts';
import type { Job, Memory } from './job.ts';

/**
 * Takes out jobs that would never end, and refuses those that would overwrite another's copy.
 *
 * @param patterns - of the configuration: a database that has gone from one keeps its copy.
 */
export function findCollisions(
  jobs: readonly Job[],
  memory: Memory,
  patterns: ReadonlySet<string>,
): { readonly kept: readonly Job[]; readonly troubles: readonly EntryState[] } {
  const { unique, troubles } = withoutTwins(jobs);
  const keyOf = placeKeys();
  const byPlace = groupByPlace(unique, keyOf);
  const originals = unique.filter((job) => !isCopyOfItself(job, byPlace, keyOf));
  const rivals = groupByPlace(originals, keyOf);
  const owners = ownersOf(originals, memory, patterns);
  const kept = originals.map((job) => {
    if (job.target.kind === 'store') return job;
    const here = rivals.get(keyOf(job.target.place)) ?? [];
    const owner = owners.get(placeId(job.target.place)) ?? ownerAmong(here, memory);
    return owner === job.id ? job : refused(job, owner, here, memory);
  });
  return { kept, troubles };
}

type Places = ReadonlyMap<string, readonly Job[]>;

/** Stores take any number of databases. */
function groupByPlace(jobs: readonly Job[], keyOf: (place: string) => string): Places {
  const replicas = jobs.filter(({ target }) => target.kind !== 'store');
  return Map.groupBy(replicas, ({ target }) => keyOf(target.place));
}

/** The same database and place twice: the first entry counts, and the status tells of one that says otherwise. */
function withoutTwins(jobs: readonly Job[]): {
  readonly unique: readonly Job[];
  readonly troubles: readonly EntryState[];
} {
  const first = new Map<string, Job>();
  const troubles = new Map<string, EntryState>();
  for (const job of jobs) {
    const known = first.get(job.id);
    if (known === undefined) first.set(job.id, job);
    else if (JSON.stringify(known.target) !== JSON.stringify(job.target)) {
      const entry = sanitizeLine(job.pattern ?? job.origin, 1000);
      const why = `${sanitizeLine(job.origin)} → ${sanitizeLine(job.target.place)} is in two entries; this one does not count.`;
      troubles.set(entry, { entry, databases: 0, level: 'failing', why });
    }
  }
  return { unique: [...first.values()], troubles: [...troubles.values()] };
}

/**
 * True for a database that a pattern finds and that is a copy made by the same entry, also by way of others: with a
 * replica in a watched folder each scan would find one more.
 */
function isCopyOfItself(job: Job, byPlace: Places, keyOf: (place: string) => string): boolean {
  const seen = new Set<string>();
  const open = job.pattern === undefined ? [] : [job.origin];
  for (let origin = open.pop(); origin !== undefined; origin = open.pop()) {
    for (const parent of byPlace.get(keyOf(origin)) ?? []) {
      if (parent.pattern === job.pattern) return true;
      if (seen.has(parent.id)) continue;
      seen.add(parent.id);
      open.push(parent.origin);
    }
  }
  return false;
}

/** Who has a copy at each place, by the state; the newest copy if several once had one. */
function ownersOf(
  jobs: readonly Job[],
  memory: Memory,
  patterns: ReadonlySet<string>,
): ReadonlyMap<string, string> {
  const asked = new Set(jobs.map(({ id }) => id));
  const owners = new Map<string, { readonly id: string; readonly atMs: number }>();
  for (const [id, { placeId: place, successAtMs: atMs, pattern }] of memory) {
    if (place === undefined || atMs === undefined) continue;
    if (!asked.has(id) && (pattern === undefined || !patterns.has(pattern))) continue;
    if ((owners.get(place)?.atMs ?? -Infinity) < atMs) owners.set(place, { id, atMs });
  }
  return new Map([...owners].map(([place, { id }]) => [place, id]));
}

/** The one that the service knew first; undefined for several that came together. */
function ownerAmong(rivals: readonly Job[], memory: Memory): string | undefined {
  const since = ({ id }: Job): number => memory.get(id)?.sinceAtMs ?? Infinity;
  const [first, second] = rivals.toSorted((a, b) => since(a) - since(b));
  if (first === undefined) return undefined;
  return second === undefined || since(first) < since(second) ? first.id : undefined;
}

function refused(job: Job, owner: string | undefined, rivals: readonly Job[], memory: Memory): Job {
  const place = sanitizeLine(job.target.place);
  const others = rivals.filter(({ id }) => id !== job.id).map(({ origin }) => sanitizeLine(origin));
  const message =
    owner === undefined
      ? `${place} would be the replica of ${others.slice(0, 3).join(', ')}, too`
      : `${place} is the replica of ${memory.get(owner)?.origin ?? others[0]} already`;
  const error = new SqlsyncError('CONFIG_INVALID', message, {
    hint: 'Give each folder an entry with replicas in a folder of its own.',
  });
  return { ...job, error };
}

/** One name for each place of a listing: without links in its folder, and without detours. */
function placeKeys(): (place: string) => string {
  const folders = new Map<string, string>();
  return (place) => {
    const location = parseLocation(place);
    if (location.kind === 'ssh') return formatLocation({ ...location, path: posix.normalize(location.path) });
    const folder = dirname(location.path);
    const real = folders.get(folder) ?? realFolder(folder);
    folders.set(folder, real);
    return join(real, basename(location.path));
  };
}

function realFolder(folder: string): string {
  try {
    return realpathSync(folder);
  } catch {
    return folder;
  }
}
