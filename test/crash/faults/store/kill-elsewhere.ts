import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { Random } from '../../../../fixtures/random.ts';
import { startFlakySftp } from '../../../support/flaky-sftp-host.ts';
import { S3Server, SERVER_KEYS } from '../../../support/s3-server.ts';
import type { FaultOptions, FaultRow } from '../group.ts';
import { includesFault, pick, Tally } from '../group.ts';
import { judgeJob, prepareJob, runJob, STORE_JOBS } from './jobs.ts';
import type { JobOptions, StoreJob } from './jobs.ts';
import { StoreScene } from './scene.ts';
import type { StoreRun } from './scene.ts';

const WHEN = ['before', 'after'] as const;
type When = (typeof WHEN)[number];

/** The age of all files, so that neither those in use nor marks count as put just now. */
const AGE_MS = 60_000;

/** More requests of SFTP than these would take hours. */
const MOST_REQUESTS = 40;

/** A service that can kill the process whose request it gets. Its stores are judged as folders of this host. */
interface KillingService {
  readonly name: string;
  readonly env: NodeJS.ProcessEnv;
  /** The address of the store of a run, which has what its folder has. */
  place(run: StoreRun): string;
  /** From now on counts requests, and kills the process at one: before or after that has its effect. */
  arm(at: number, when: When): void;
  /** The process to kill. */
  readonly onStart: (pid: number) => void;
  /** The number of requests since then. Gives the folder of the run what the store has, once nothing is under way. */
  disarm(run: StoreRun): Promise<number>;
  stop(): Promise<void>;
}

/** Of the fault at each place, the commands that it meets. */
const JOBS: readonly StoreJob[] = [
  ...STORE_JOBS.filter(({ isBesideAnother }) => isBesideAnother !== true),
  {
    name: 'key passwd',
    kind: 'used',
    args: (scene, { store }) => ['key', 'passwd', store, '--new-password-file', scene.newPasswordFile],
  },
];

/** The process of a command is killed at each request to a store in S3 or behind an SFTP server, plain and encrypted. */
export async function* killElsewhere(folder: string, options: FaultOptions): AsyncGenerator<FaultRow> {
  const random = new Random(options.seed);
  const isEncrypted = random.chance(0.5);
  for (const start of options.long ? [startS3, startSftp] : [random.pick([startS3, startSftp])]) {
    const own = mkdtempSync(join(folder, 'killing-'));
    const service = await start(own);
    if (service === undefined) continue;
    try {
      for (const scheme of options.long ? [false, true] : [isEncrypted]) {
        const possible = JOBS.filter((job) => scheme || !job.name.startsWith('key'));
        for (const job of options.long ? possible : pick(possible, 1, random)) {
          const named = (when: When): string =>
            `kill -9 ${when} a request to ${service.name}, ${scheme ? 'encrypted' : 'plain'}: ${job.name}`;
          if (WHEN.some((when) => includesFault(options, named(when))))
            yield* killJob({ service, job, isEncrypted: scheme, named }, join(own, 'scene'), options);
        }
      }
    } finally {
      await service.stop();
    }
  }
}

interface Killing {
  readonly service: KillingService;
  readonly job: StoreJob;
  readonly isEncrypted: boolean;
  readonly named: (when: When) => string;
}

async function* killJob(
  { service, job, isEncrypted, named }: Killing,
  folder: string,
  { seed, long }: FaultOptions,
): AsyncGenerator<FaultRow> {
  const random = new Random(seed);
  const scene = await StoreScene.make(folder, [job.kind], isEncrypted);
  try {
    const meet = async (at: number, when: When): Promise<{ requests: number; outcome: string }> => {
      const run = prepareJob(scene, job);
      const how: JobOptions = {
        address: service.place(run),
        env: { ...service.env, ...secretsOf(scene, isEncrypted, run) },
        onStart: service.onStart,
      };
      service.arm(at, when);
      const end = await runJob(scene, withEncryption(job, isEncrypted), run, how);
      const requests = await service.disarm(run);
      const outcome = await judgeJob(scene, job, run, end, end.signal === 'SIGKILL');
      scene.discard(run);
      return { requests, outcome };
    };
    const { requests, outcome } = await meet(0, 'before');
    if (!outcome.startsWith('done')) throw new Error(`${job.name}: ${outcome}`);
    const all = Array.from({ length: requests }, (_, i) => i + 1);
    for (const when of long ? WHEN : [random.pick(WHEN)]) {
      const tally = new Tally(named(when));
      for (const at of pick(all, long ? MOST_REQUESTS : 1, random))
        await tally.add(`request ${at} of ${requests}`, async () => (await meet(at, when)).outcome);
      yield tally;
    }
  } finally {
    await scene.end();
  }
}

function withEncryption(job: StoreJob, isEncrypted: boolean): StoreJob {
  if (job.kind !== 'absent' || !isEncrypted) return job;
  return { ...job, args: (scene, run) => [...job.args(scene, run), '--encrypt'] };
}

/** Each run is a host of its own. */
function secretsOf(scene: StoreScene, isEncrypted: boolean, { folder }: StoreRun): NodeJS.ProcessEnv {
  return {
    XDG_CACHE_HOME: join(folder, 'cache-home'),
    XDG_STATE_HOME: join(folder, 'state-home'),
    SQLSYNC_SCRYPT_N: String(2 ** 15),
    ...(isEncrypted ? { SQLSYNC_PASSWORD_FILE: scene.passwordFile } : {}),
  };
}

/** The files of the store's folder, and back. */
async function startS3(): Promise<KillingService> {
  const ends: (() => unknown)[] = [];
  const server = await S3Server.start({ after: (end: () => unknown) => void ends.push(end) });
  let pid = 0;
  let runs = 0;
  // A request of a killed process may come when the next run has begun.
  const prefix = (): string => `run-${runs}/`;
  return {
    name: 'S3',
    env: {
      AWS_ACCESS_KEY_ID: SERVER_KEYS.accessKeyId,
      AWS_SECRET_ACCESS_KEY: SERVER_KEYS.secretAccessKey,
    },
    onStart: (started) => (pid = started),
    place({ store }) {
      runs++;
      const modified = new Date(Date.now() - AGE_MS);
      for (const name of filesBelow(store))
        server.objects.set(prefix() + name, { bytes: readFileSync(join(store, name)), modified });
      return `s3:${server.url}/bucket/run-${runs}`;
    },
    arm(at, when) {
      server.requests.length = 0;
      server.twist = () => {
        if (server.requests.length !== at) return undefined;
        try {
          process.kill(pid, 'SIGKILL');
        } catch {
          // It has ended by itself.
        }
        return { status: 500, takesEffect: when === 'after' };
      };
    },
    disarm({ store }) {
      rmSync(store, { recursive: true, force: true });
      for (const [key, { bytes }] of server.objects) {
        if (!key.startsWith(prefix())) continue;
        const path = join(store, key.slice(prefix().length));
        mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
        writeFileSync(path, bytes);
      }
      return Promise.resolve(server.requests.length);
    },
    async stop() {
      for (const end of ends) await end();
    },
  };
}

async function startSftp(folder: string): Promise<KillingService | undefined> {
  const host = await startFlakySftp(folder, { delayMs: 0, chance: 0 });
  if (host === undefined) return undefined;
  return {
    name: 'an SFTP server',
    env: host.env,
    onStart: (pid) => writeFileSync(join(folder, 'pid'), String(pid)),
    place({ store }) {
      const seconds = (Date.now() - AGE_MS) / 1000;
      for (const name of filesBelow(store)) utimesSync(join(store, name), seconds, seconds);
      return `sftp:sqlsync-test:${store}`;
    },
    arm(at, when) {
      writeFileSync(join(folder, 'requests'), '');
      writeFileSync(join(folder, 'kill'), `${at} ${when}`);
    },
    async disarm() {
      await host.idle();
      return host.requests();
    },
    stop: () => host.stop(),
  };
}

/** Their names within the folder of a store; none if it does not exist. */
function filesBelow(store: string): string[] {
  if (!existsSync(store)) return [];
  return readdirSync(store, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name).slice(store.length + 1))
    .filter((name) => !name.startsWith('cache/'));
}
