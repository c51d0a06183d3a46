import { mkdtempSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { makeBucket } from '../test/support/s3-bucket.ts';
import { GATEWAY_KEYS, startGateway, whyNoGateway } from '../test/support/s3-gateway.ts';
import { changeRows, hasRestic, mb } from './backup.ts';
import { CountingProxy } from './counting-proxy.ts';
import type { Traffic } from './counting-proxy.ts';
import { prepareBase } from './data.ts';
import type { BenchData } from './data.ts';
import { measureProcess } from './measure.ts';
import { table } from './results.ts';
import { assertSamePages, copyToDisk } from './target.ts';

export interface StoresBenchOptions {
  readonly data: BenchData;
  readonly exe: string;
  /** How many daily backups the price is of. */
  readonly days: number;
}

/** AWS's list prices of S3 Standard in us-east-1, in dollars: of 1000 requests, and of a GB stored for a month. */
const PRICE = { thousandWrites: 0.005, thousandReads: 0.0004, storedGb: 0.023 };

const ROUND_TRIPS_MS = [0, 100];

/** One command at one place. */
interface Step {
  readonly what: string;
  readonly place: string;
  readonly seconds: number;
  /** undefined for a folder. */
  readonly traffic: Traffic | undefined;
}

/** A tool with a store or repository that is empty. */
interface Tool {
  readonly place: string;
  /** Runs a command; the arguments after it stand for themselves. */
  run(step: 'init' | 'backup' | 'restore' | 'forget' | 'prune' | 'check', target?: string): Promise<number>;
}

/** A store in a folder and at a real S3 service, near and far, beside restic at the same service. */
export async function storesSection(options: StoresBenchOptions): Promise<string> {
  const why = whyNoGateway();
  if (why !== false) throw new Error(why);
  if (!hasRestic()) process.emitWarning('restic is missing (apt-get install restic): measured without it');
  const folder = mkdtempSync(join(tmpdir(), 'sqlsync-bench-'));
  const gateway = await startGateway({ onDisk: true });
  Object.assign(process.env, GATEWAY_KEYS, {
    XDG_CACHE_HOME: join(folder, 'cache'),
    RESTIC_CACHE_DIR: join(folder, 'restic-cache'),
    RESTIC_PASSWORD: 'bench',
  });
  try {
    await makeBucket(`s3:${gateway.url}/bench/made`);
    return await measureAll(folder, gateway.port, options);
  } finally {
    await gateway.stop();
    rmSync(folder, { recursive: true, force: true });
  }
}

async function measureAll(folder: string, port: number, options: StoresBenchOptions): Promise<string> {
  const steps: Step[] = await measureTool(
    folder,
    sqlsyncAt(join(folder, 'store'), 'folder', options.exe),
    options,
  );
  for (const roundTripMs of ROUND_TRIPS_MS) {
    const proxy = await CountingProxy.start(port, roundTripMs);
    const url = `http://127.0.0.1:${proxy.port}/bench`;
    const place = `Ceph, ${roundTripMs} ms`;
    steps.push(
      ...(await measureTool(
        folder,
        sqlsyncAt(`s3:${url}/s${roundTripMs}`, place, options.exe),
        options,
        proxy,
      )),
    );
    if (hasRestic()) {
      const restic = resticAt(`s3:${url}/r${roundTripMs}`, `${place}, restic`);
      steps.push(...(await measureTool(folder, restic, options, proxy)));
    }
    proxy.close();
  }
  const months = [await measureDays(folder, port, options, 'sqlsync')];
  if (hasRestic()) months.push(await measureDays(folder, port, options, 'restic'));
  return [report(steps, statSync(originAndTarget(folder)[0]).size), '', ...months].join('\n');
}

/** Each step once: first and next backup, restore, check, and prune after the first snapshot was forgotten. */
async function measureTool(
  folder: string,
  tool: Tool,
  { data }: StoresBenchOptions,
  proxy?: CountingProxy,
): Promise<Step[]> {
  const [origin, target] = originAndTarget(folder);
  copyToDisk(prepareBase(data), origin);
  const steps: Step[] = [];
  const step = async (what: string, ...args: Parameters<Tool['run']>): Promise<void> => {
    proxy?.take();
    const seconds = await tool.run(...args);
    steps.push({ what, place: tool.place, seconds, traffic: proxy?.take() });
    console.error(`${what}: ${tool.place}: ${seconds.toFixed(2)} s`);
  };
  await tool.run('init');
  await step('first backup', 'backup', origin);
  changeRows(origin, data.rows, data.seed + 1);
  await step('next backup, 1 % of the rows', 'backup', origin);
  await step('next backup, nothing new', 'backup', origin);
  await step('restore', 'restore', target);
  assertSamePages(origin, restoredBy(tool, target, origin));
  rmSync(target, { recursive: true, force: true });
  await step('check with all data', 'check');
  await tool.run('forget');
  await step('prune', 'prune');
  return steps;
}

/** restic restores below a folder, with the path that the file had. */
function restoredBy({ place }: Tool, target: string, origin: string): string {
  return place.endsWith('restic') ? join(target, origin) : target;
}

function originAndTarget(folder: string): [string, string] {
  return [join(folder, 'origin.db'), join(folder, 'restored.db')];
}

function sqlsyncAt(store: string, place: string, exe: string): Tool {
  const of = {
    init: () => ['init', store],
    backup: (origin: string) => ['backup', origin, store],
    restore: (target: string) => ['restore', store, target],
    forget: () => ['forget', store, '--keep-last', '1'],
    prune: () => ['prune', store, '--grace', '0'],
    check: () => ['check', store, '--read-data'],
  };
  return {
    place,
    run: async (step, target = '') =>
      (await measureProcess(process.execPath, [exe, ...of[step](target), '-q'], { sample: false })).seconds,
  };
}

function resticAt(repository: string, place: string): Tool {
  const of = {
    init: () => ['init'],
    backup: (origin: string) => ['backup', origin],
    restore: (target: string) => ['restore', 'latest', '--target', target],
    forget: () => ['forget', '--keep-last', '1'],
    prune: () => ['prune'],
    check: () => ['check', '--read-data'],
  };
  return {
    place,
    run: async (step, target = '') =>
      (await measureProcess('restic', ['-q', '-r', repository, ...of[step](target)], { sample: false }))
        .seconds,
  };
}

/** One backup a day after 1 % of the rows were changed: all requests of a month, and what they cost. */
async function measureDays(
  folder: string,
  port: number,
  { data, exe, days }: StoresBenchOptions,
  name: 'sqlsync' | 'restic',
): Promise<string> {
  const proxy = await CountingProxy.start(port, 0);
  const url = `s3:http://127.0.0.1:${proxy.port}/bench/month-${name}`;
  const tool = name === 'sqlsync' ? sqlsyncAt(url, 'month', exe) : resticAt(url, 'month, restic');
  const [origin] = originAndTarget(folder);
  copyToDisk(prepareBase(data), origin);
  await tool.run('init');
  await tool.run('backup', origin);
  const first = proxy.take();
  for (let day = 1; day <= days; day++) {
    changeRows(origin, data.rows, data.seed + day);
    await tool.run('backup', origin);
    console.error(`${tool.place}: day ${day} of ${days}`);
  }
  const all = proxy.take();
  proxy.close();
  const requests = (all.writes * PRICE.thousandWrites + all.reads * PRICE.thousandReads) / 1000;
  const stored = (first.bytesUp + all.bytesUp) / 1e9;
  return (
    `${name}: ${days} daily backups after the first, each after an UPDATE of 1 % of the rows: ${all.writes} writes and lists, ` +
    `${all.reads} reads, ${all.deletes} deletes, ${mb(all.bytesUp)} MB up, ${mb(all.bytesDown)} MB down; ` +
    `$${requests.toFixed(5)} of requests, and $${(stored * PRICE.storedGb).toFixed(4)} a month for the ${mb(stored * 1e9)} MB that were sent.`
  );
}

function report(steps: readonly Step[], fileBytes: number): string {
  const order = [...new Set(steps.map(({ what }) => what))];
  const sorted = order.flatMap((what) => steps.filter((step) => step.what === what));
  const cell = (traffic: Traffic | undefined, field: keyof Traffic): string => {
    if (traffic === undefined) return '';
    return field.startsWith('bytes') ? mb(traffic[field]) : String(traffic[field]);
  };
  const fields = ['reads', 'writes', 'deletes', 'bytesUp', 'bytesDown'] as const;
  const rows = sorted.map(({ what, place, seconds, traffic }) =>
    [`${what}: ${place}`, seconds.toFixed(2)].concat(fields.map((field) => cell(traffic, field))),
  );
  return [
    `A database of ${mb(fileBytes)} MB, one run each. Ceph's gateway is on this host, with a disk of a file; a proxy before it delays, and counts requests and bytes.`,
    'Writes are PUT, POST and lists, which AWS bills alike; reads are GET and HEAD of files. restic backs up the closed file, with its cache.',
    '',
    table(['what', 's', 'reads', 'writes', 'deletes', 'MB up', 'MB down'], rows),
  ].join('\n');
}
