import { basename } from 'node:path';
import type { SqlsyncError } from '../../errors.ts';
import { parseLocation } from '../../transport/location.ts';
import type { DatabaseConfig, ServiceConfig, TargetConfig } from '../config/read-config.ts';
import { targetId } from '../state/state.ts';
import type { EntryState } from '../state/state.ts';
import { findCollisions } from './collisions.ts';
import type { Job, Memory } from './job.ts';
import { SeenOrigins } from './seen-origins.ts';
import type { SeenOrigin } from './seen-origins.ts';

/** What a configuration stands for now. */
export interface JobList {
  readonly jobs: readonly Job[];
  /** The ids of jobs with a database that the last look did not find. */
  readonly missing: ReadonlySet<string>;
  readonly entries: readonly EntryState[];
  /** The patterns that could not be searched as a whole. */
  readonly unsure: ReadonlySet<string>;
}

/** Makes jobs of a configuration, and looks through patterns and watched folders each time. */
export class JobLister {
  readonly #seen = new SeenOrigins();

  list(config: ServiceConfig, memory: Memory): JobList {
    const missing = new Set<string>();
    const unsure = new Set<string>();
    const entries: EntryState[] = [];
    const jobs: Job[] = [];
    for (const database of config.databases) {
      for (const { origin, error, isMissing } of this.#look(database, config, memory, entries, unsure)) {
        for (const target of database.targets) {
          const job = jobOf(database, origin, target, error);
          jobs.push(job);
          if (isMissing) missing.add(job.id);
        }
      }
    }
    const { kept, troubles } = findCollisions(jobs, memory, patternsOf(config));
    return { jobs: kept, missing, entries: [...entries, ...troubles], unsure };
  }

  #look(
    database: DatabaseConfig,
    { scanMs }: ServiceConfig,
    memory: Memory,
    entries: EntryState[],
    unsure: Set<string>,
  ): readonly SeenOrigin[] {
    const { origin: pattern, isPattern, targets } = database;
    if (!isPattern) return [{ origin: pattern, error: undefined, isMissing: false }];
    const isKnown = (path: string): boolean =>
      targets.some(
        (target) => memory.get(jobOf(database, path, target, undefined).id)?.successAtMs !== undefined,
      );
    const { origins, entry, isWhole } = this.#seen.look(pattern, isKnown, scanMs);
    entries.push(entry);
    if (!isWhole) unsure.add(pattern);
    return origins;
  }
}

export function patternsOf({ databases }: ServiceConfig): ReadonlySet<string> {
  return new Set(databases.filter(({ isPattern }) => isPattern).map(({ origin }) => origin));
}

function jobOf(
  database: DatabaseConfig,
  origin: string,
  target: TargetConfig,
  error: SqlsyncError | undefined,
): Job {
  const place = target.place.replaceAll('{name}', () => basename(parseLocation(origin).path));
  const pattern = database.isPattern ? database.origin : undefined;
  return { id: targetId(origin, place), origin, target: { ...target, place }, pattern, error };
}
