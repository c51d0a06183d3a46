import { existsSync } from 'node:fs';
import { basename } from 'node:path';
import { SqlsyncError, toSqlsyncError } from '../../errors.ts';
import { expandOrigins } from '../../cli/store/origins.ts';
import { parseLocation } from '../../transport/location.ts';
import type { DatabaseConfig, ServiceConfig, TargetConfig } from '../config/read-config.ts';
import { targetId } from '../state/state.ts';

/** One target of one database: what is copied again and again. */
export interface Job {
  readonly id: string;
  readonly origin: string;
  /** Its place is that of this database. */
  readonly target: TargetConfig;
  /** The pattern that its database matches. */
  readonly pattern: string | undefined;
  /** Why it cannot be copied. */
  readonly error: SqlsyncError | undefined;
}

/**
 * The jobs of a configuration, with patterns and watched folders looked through now.
 *
 * @param isKnown - tells whether the file at a path was a database before: its damage is then reported.
 */
export function listJobs(config: ServiceConfig, isKnown: (path: string) => boolean): Job[] {
  const jobs = config.databases.flatMap((database) =>
    originsOf(database, isKnown).flatMap(({ origin, error }) =>
      database.targets.map((target) => jobOf(database, origin, target, error)),
    ),
  );
  return withoutCollisions(jobs);
}

function originsOf(
  { origin, isPattern }: DatabaseConfig,
  isKnown: (path: string) => boolean,
): { readonly origin: string; readonly error?: SqlsyncError }[] {
  if (!isPattern) return [{ origin }];
  const listeners = { isBackedUp: isKnown, onNote: () => {}, onWarning: () => {} };
  try {
    // A pattern without a match is no error here: databases may appear.
    return expandOrigins([origin], listeners).filter((each) => each.origin !== origin || existsSync(origin));
  } catch (error) {
    return [{ origin, error: toSqlsyncError(error) }];
  }
}

function jobOf(
  database: DatabaseConfig,
  origin: string,
  target: TargetConfig,
  error: SqlsyncError | undefined,
): Job {
  const place = target.place.replaceAll('{name}', () => basename(pathOf(origin)));
  const pattern = database.isPattern ? database.origin : undefined;
  return { id: targetId(origin, place), origin, target: { ...target, place }, pattern, error };
}

function pathOf(place: string): string {
  return parseLocation(place).path;
}

/** Two databases of the same name in two folders would overwrite each other's replica: the second is refused. */
function withoutCollisions(jobs: readonly Job[]): Job[] {
  const owners = new Map<string, string>();
  const unique = [...new Map(jobs.map((job) => [job.id, job])).values()];
  return unique.map((job) => {
    const { kind, place } = job.target;
    if (kind === 'store') return job;
    const owner = owners.get(place) ?? job.origin;
    owners.set(place, owner);
    return owner === job.origin ? job : refused(job, owner);
  });
}

function refused(job: Job, owner: string): Job {
  const error = new SqlsyncError('CONFIG_INVALID', `${job.target.place} is the replica of ${owner} already`, {
    hint: 'Give each folder an entry with replicas in a folder of its own.',
  });
  return { ...job, error };
}
