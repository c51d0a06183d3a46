import { toSqlsyncError } from '../../errors.ts';
import { inspectDatabase } from '../../pages/database-file.ts';
import type { DatabaseReport, Moment, ReportAnswer } from '../../report/report.ts';
import { parseLocation } from '../../transport/location.ts';
import { reportWords } from '../jobs/command-words.ts';
import type { Job } from '../jobs/job.ts';
import { runCommand } from '../jobs/run-command.ts';
import type { TargetState } from '../state/state.ts';
import { withoutSecrets } from '../state/state.ts';

/** Tables of larger databases are not measured, and larger replicas not compared: somebody only looks at a page. */
const MAX_BYTES = 256 * 1024 * 1024;

/** How long a report may take, in milliseconds. */
const LIMIT_MS = 60_000;

/** How many reports are kept. */
const MAX_KEPT = 50;

/** How long a failure is shown before the report is tried again, in milliseconds. */
const FAILURE_KEPT_MS = 60_000;

interface Kept {
  /** The copy that it is of. */
  readonly copy: string;
  readonly answer: ReportAnswer;
  readonly untilMs: number;
}

/** The service, as far as reports need it. */
export interface ReportedService {
  job(id: string): Job | undefined;
  stateOf(id: string): TargetState | undefined;
}

/**
 * The reports that the page of the service shows: each is made by a process of its own when somebody asks for it, one at
 * a time, and kept until the next copy.
 */
export class TargetReports {
  readonly #service: ReportedService;
  readonly #kept = new Map<string, Kept>();
  readonly #closing = new AbortController();
  #running: Promise<void> | undefined;

  constructor(service: ReportedService) {
    this.#service = service;
  }

  /** What is known at once; a report that is missing begins, unless another one is under way. */
  get(id: string): ReportAnswer {
    const [job, state] = [this.#service.job(id), this.#service.stateOf(id)];
    if (job === undefined || state?.successAtMs === undefined)
      return missing(job === undefined ? 'The database is not copied any more.' : 'There is no copy yet.');
    const copy = `${state.successAtMs} ${state.snapshot ?? ''}`;
    const kept = this.#kept.get(id);
    if (kept?.copy === copy && kept.untilMs > Date.now()) return kept.answer;
    const why = job.target.kind === 'store' ? undefined : whyNotCompared(job);
    if (why !== undefined) return missing(why);
    if (!this.#closing.signal.aborted)
      this.#running ??= this.#make(job, state.snapshot, copy).finally(() => (this.#running = undefined));
    return { is: 'reading' };
  }

  /** Ends what is under way. */
  async close(): Promise<void> {
    this.#closing.abort();
    await this.#running;
  }

  /** Never rejects. */
  async #make(job: Job, snapshot: string | undefined, copy: string): Promise<void> {
    const limit = AbortSignal.timeout(LIMIT_MS);
    let [answer, untilMs] = [missing(`It took longer than ${LIMIT_MS / 1000} s; use sqlsync report.`), 0];
    try {
      const words = reportWords(job, snapshot, MAX_BYTES);
      const { summary } = await runCommand(words, AbortSignal.any([this.#closing.signal, limit]));
      const [database] = summary['databases'] as [DatabaseReport];
      answer = { is: 'ready', database: shown(database) };
      untilMs = Infinity;
    } catch (error) {
      untilMs = Date.now() + FAILURE_KEPT_MS;
      const { message, code } = toSqlsyncError(error);
      if (!limit.aborted) answer = missing(withoutSecrets(`${message} [${code}]`));
    }
    this.#kept.delete(job.id);
    this.#kept.set(job.id, { copy, answer, untilMs });
    const [oldest] = this.#kept.keys();
    if (this.#kept.size > MAX_KEPT && oldest !== undefined) this.#kept.delete(oldest);
  }
}

function missing(why: string): ReportAnswer {
  return { is: 'missing', why };
}

/** Places as the status shows them. */
function shown(database: DatabaseReport): DatabaseReport {
  const { name, moments, remarks } = database;
  return {
    ...database,
    name: withoutSecrets(name),
    moments: moments.map(shownMoment),
    remarks: remarks.map(withoutSecrets),
  };
}

function shownMoment(moment: Moment): Moment {
  return { ...moment, restore: withoutSecrets(moment.restore) };
}

/** Reading must neither load another host, nor make writers wait. */
function whyNotCompared(job: Job): string | undefined {
  try {
    return whyNotRead(job);
  } catch (error) {
    return withoutSecrets(toSqlsyncError(error).message);
  }
}

/** Throws the system's errors. */
function whyNotRead({ origin, target }: Job): string | undefined {
  const places = [origin, target.place].map((each) => parseLocation(each));
  if (places.some(({ kind }) => kind !== 'local'))
    return 'Database and replica are on two hosts: sqlsync report A B compares them.';
  const [database, replica] = places.map(({ path }) => inspectDatabase(path));
  if (database === undefined || replica === undefined) return 'The database or its replica is not there.';
  if (Math.max(database.stats.size, replica.stats.size) > MAX_BYTES)
    return 'The database is too large to compare it for this page: use sqlsync report A B.';
  const isWal = database.header?.wal === true;
  return isWal ? undefined : 'Its writers would wait while it is read, since it is not in WAL mode.';
}
