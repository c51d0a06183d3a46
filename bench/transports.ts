/** The section `transports`: the built-in SSH beside the user's own `ssh`, for a new replica. */
import { prepareCase } from './data.ts';
import type { BenchData } from './data.ts';
import { measureProcess, median } from './measure.ts';
import { sshRoute } from './route.ts';
import type { LinkSettings, Route } from './route.ts';
import { figure, table } from './results.ts';
import { settle } from './settle.ts';
import { assertSamePages, freshTarget } from './target.ts';

export interface TransportsOptions {
  data: BenchData;
  runs: number;
  exe: string;
  syncArgs: readonly string[];
}

/**
 * So fast that the run is limited not by the line, but by the bytes that each side allows to be on their way.
 */
const FAR_LINE: LinkSettings = { rttMs: 100, bitsPerSecond: 1e9 };
const WAYS = [
  { name: 'loopback', settings: undefined },
  { name: `${FAR_LINE.rttMs} ms`, settings: FAR_LINE },
] as const;
const SMALL_ROWS = 3500;
const DIRECTIONS = ['pull', 'push'] as const;
const COMPRESSIONS = ['none', 'zstd'] as const;
const OPENSSH = ['--rsh', 'ssh -F none -o IdentitiesOnly=yes -o BatchMode=yes'];

interface TransportCase {
  direction: (typeof DIRECTIONS)[number];
  compression: (typeof COMPRESSIONS)[number];
}

export async function transportsSection(options: TransportsOptions): Promise<string> {
  const { runs, data } = options;
  const { origin } = prepareCase('new', data);
  const { origin: small } = prepareCase('new', { rows: SMALL_ROWS, seed: data.seed });
  const rows: string[][] = [];
  for (const { name, settings } of WAYS) {
    const route = await sshRoute(options.exe, settings);
    try {
      // The first run fills the compile cache of Node.js, on either host.
      await measureOne(small, route, { direction: 'pull', compression: 'none' }, [], options);
      for (const compression of COMPRESSIONS) {
        for (const direction of DIRECTIONS) {
          const how = { direction, compression };
          rows.push([
            `${direction}, ${name}, \`${compression}\``,
            ...(await compare(origin, route, how, options)),
          ]);
        }
      }
    } finally {
      await route.close();
    }
  }
  const header = ['case', 'built in s', '`--rsh ssh` s', 'ratio', 'built in CPU s', '`--rsh ssh` CPU s'];
  return `Medians of ${runs} rounds of a new replica, ${data.rows.toLocaleString('en')} rows; in each round both run once. ${FAR_LINE.rttMs} ms is a line of that round trip and
${FAR_LINE.bitsPerSecond / 1e9} Gbit/s (bench/link.ts). CPU is that of both agents and of the \`ssh\` that was started; that of sshd is not counted.

${table(header, rows)}`;
}

async function compare(
  origin: string,
  route: Route,
  how: TransportCase,
  options: TransportsOptions,
): Promise<string[]> {
  const builtIn: Sample[] = [];
  const openssh: Sample[] = [];
  for (let round = 0; round < options.runs; round++) {
    const measurements = [
      async () => void builtIn.push(await measureOne(origin, route, how, [], options)),
      async () => void openssh.push(await measureOne(origin, route, how, OPENSSH, options)),
    ];
    // As in rounds.ts: a drift of the machine favours nobody.
    if (round % 2 === 1) measurements.reverse();
    for (const measurement of measurements) await measurement();
    console.error(
      `${how.direction} ${how.compression} ${round + 1}: built in ${builtIn.at(-1)?.seconds.toFixed(2)} s, ssh ${openssh.at(-1)?.seconds.toFixed(2)} s`,
    );
  }
  const ratios = builtIn.map(({ seconds }, round) => seconds / (openssh[round] as Sample).seconds);
  return [
    figure(median(builtIn.map(({ seconds }) => seconds)), 2),
    figure(median(openssh.map(({ seconds }) => seconds)), 2),
    figure(median(ratios), 2),
    figure(median(builtIn.map(({ cpuSeconds }) => cpuSeconds)), 1),
    figure(median(openssh.map(({ cpuSeconds }) => cpuSeconds)), 1),
  ];
}

interface Sample {
  seconds: number;
  cpuSeconds: number;
}

/** One new replica, by the built-in SSH unless `transport` says otherwise. */
async function measureOne(
  origin: string,
  route: Route,
  { direction, compression }: TransportCase,
  transport: readonly string[],
  { exe, syncArgs }: TransportsOptions,
): Promise<Sample> {
  const target = freshTarget(undefined);
  settle([origin]);
  route.far?.forget();
  const ends = direction === 'pull' ? [route.location(origin), target] : [origin, route.location(target)];
  const args = [
    exe,
    ...ends,
    '--quiet',
    '--compress',
    compression,
    ...route.syncOptions,
    ...transport,
    ...syncArgs,
  ];
  const { seconds, cpuSeconds } = await measureProcess(process.execPath, args, { sample: false });
  const far = (await route.far?.cpuSeconds()) ?? 0;
  assertSamePages(origin, target);
  return { seconds, cpuSeconds: cpuSeconds + far };
}
