import { existsSync, mkdtempSync } from 'node:fs';
import { join } from 'node:path';
import { mock } from 'node:test';
import { Random } from '../../../../fixtures/random.ts';
import type { LocalBackend } from '../../../../src/backup/backends/backend.ts';
import { DirectoryBackend } from '../../../../src/backup/backends/directory-backend.ts';
import { S3Backend } from '../../../../src/backup/backends/s3/s3-backend.ts';
import { SftpBackend } from '../../../../src/backup/backends/sftp/sftp-backend.ts';
import { ClockedBackend } from '../../../backup/clocked-backend.ts';
import { nothingDone, StoreModel } from '../../../model/store-model.ts';
import { makeBucket } from '../../../support/s3-bucket.ts';
import { GATEWAY_KEYS, startGateway, whyNoGateway } from '../../../support/s3-gateway.ts';
import { startServerThread } from '../../../support/s3-server-thread.ts';
import { SERVER_KEYS } from '../../../support/s3-server.ts';
import type { FaultOptions, FaultRow } from '../group.ts';
import { includesFault, Tally } from '../group.ts';

/** Where stores of the model lie. */
interface Place {
  readonly name: string;
  /** True if backups rely on what this host remembers. */
  readonly isElsewhere: boolean;
  /** How long histories go on, one after another; at least one is lived. */
  readonly forMs: number;
  /** Returns what gives an empty place each time, or why there is none here. */
  open(after: (work: () => unknown) => void): Promise<(() => LocalBackend) | string>;
}

const DAYS = { short: 3, long: 12 };

const MINUTE_MS = 60_000;

/** Faster than the usual first pause: the histories have many faults. */
const LIMITS = { firstPauseMs: 20 };

/**
 * Lives through random histories of a store at each kind of place: backups, prunes and forgets at the same time, killed
 * at random operations, that fail before or after their effect.
 */
export async function* liveElsewhere(folder: string, options: FaultOptions): AsyncGenerator<FaultRow> {
  for (const place of placesFor(folder, options)) {
    const fault = `history of a store ${place.name}`;
    if (!includesFault(options, fault)) continue;
    const tally = new Tally(fault);
    const cleanups: (() => unknown)[] = [];
    const after = (work: () => unknown): void => void cleanups.push(work);
    try {
      const open = await place.open(after);
      if (typeof open === 'string') process.emitWarning(open);
      else await liveAt(place, open, tally, options);
    } finally {
      mock.timers.reset();
      for (const work of cleanups.toReversed()) await work();
    }
    if (tally.times > 0) yield tally;
  }
}

async function liveAt(
  place: Place,
  open: () => LocalBackend,
  tally: Tally,
  { seed, long }: FaultOptions,
): Promise<void> {
  const startedAtMs = performance.now();
  for (let run = 0; run === 0 || performance.now() - startedAtMs < place.forMs; run++) {
    const cleanups: (() => unknown)[] = [];
    const context = { mock, after: (work: () => unknown): void => void cleanups.push(work) };
    await tally.add(`--seed ${seed}, history ${run}`, async () => {
      const random = new Random(seed + run);
      const backend = new ClockedBackend(open());
      const given = { backend, random, done: nothingDone(), isElsewhere: place.isElsewhere };
      const model = await StoreModel.start(context, given);
      for (let days = long ? DAYS.long : DAYS.short; days > 0; days--) await model.live();
      await model.finish();
      return 'nothing lost';
    });
    for (const work of cleanups) await work();
  }
}

function placesFor(folder: string, { long, seed }: FaultOptions): Place[] {
  const newFolder = (): string => mkdtempSync(join(folder, 'place-'));
  let count = 0;
  const flaky: Place = {
    name: 'at a flaky service',
    isElsewhere: true,
    forMs: long ? 60 * MINUTE_MS : 0,
    async open(after) {
      setKeys(SERVER_KEYS.accessKeyId, SERVER_KEYS.secretAccessKey, after);
      const server = await startServerThread({ after }, { flaky: { delayMs: long ? 100 : 1, seed } });
      return () => new S3Backend({ address: `${server.address}/${++count}`, limits: LIMITS });
    },
  };
  if (!long) return [flaky];
  return [
    {
      name: 'in a folder',
      isElsewhere: false,
      forMs: 5 * MINUTE_MS,
      open: () => Promise.resolve(() => new DirectoryBackend(newFolder())),
    },
    {
      name: 'by SFTP',
      isElsewhere: true,
      forMs: 10 * MINUTE_MS,
      open: (after) => openSftp(newFolder, after),
    },
    { name: 'at a real S3 service', isElsewhere: true, forMs: 10 * MINUTE_MS, open: openGateway },
    flaky,
  ];
}

/** By OpenSSH's server on this host, without SSH. */
function openSftp(
  newFolder: () => string,
  after: (work: () => unknown) => void,
): Promise<(() => LocalBackend) | string> {
  const server = [
    '/usr/lib/openssh/sftp-server',
    '/usr/lib/ssh/sftp-server',
    '/usr/libexec/sftp-server',
  ].find((path) => existsSync(path));
  if (server === undefined) return Promise.resolve('NOT TRIED BY SFTP: OpenSSH’s sftp-server is missing');
  const before = process.env['SQLSYNC_RSH'];
  // The remote shell gets options, a host and a command, of which only the server is needed.
  process.env['SQLSYNC_RSH'] = `sh -c ${server}`;
  after(() => restore('SQLSYNC_RSH', before));
  return Promise.resolve(() => new SftpBackend(`sftp:here:${join(newFolder(), 'store')}`));
}

async function openGateway(after: (work: () => unknown) => void): Promise<(() => LocalBackend) | string> {
  const why = whyNoGateway();
  if (why !== false) return why;
  setKeys(GATEWAY_KEYS.AWS_ACCESS_KEY_ID, GATEWAY_KEYS.AWS_SECRET_ACCESS_KEY, after);
  const gateway = await startGateway();
  after(() => gateway.stop());
  let count = 0;
  await makeBucket(`s3:${gateway.url}/bucket/model`);
  return () => new S3Backend({ address: `s3:${gateway.url}/bucket/model/${++count}`, limits: LIMITS });
}

function setKeys(id: string, secret: string, after: (work: () => unknown) => void): void {
  for (const [name, value] of [
    ['AWS_ACCESS_KEY_ID', id],
    ['AWS_SECRET_ACCESS_KEY', secret],
  ] as const) {
    const before = process.env[name];
    process.env[name] = value;
    after(() => restore(name, before));
  }
}

function restore(name: string, value: string | undefined): void {
  if (value === undefined) delete process.env[name];
  else process.env[name] = value;
}
