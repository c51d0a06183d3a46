import { spawn } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';

export interface Measured {
  /** From the start of the process to its exit. */
  seconds: number;
  /** When it ended, in milliseconds since 1970. */
  endedAtMs: number;
  stdout: string;
  /** User and system time of the process and of all that it started and waited for. */
  cpuSeconds: number;
  /** Peak resident set of the process itself; undefined without /proc. */
  peakBytes: number | undefined;
  /** The same of the largest process that it started, or of `alsoSample`; undefined if it started none. */
  childPeakBytes: number | undefined;
}

export interface MeasureOptions {
  /**
   * The file in which a process that is no descendant leaves its pid; it is measured too, with its own
   * descendants.
   */
  alsoSample?: string | undefined;
  /** Peaks are found by polling; false leaves the machine alone. By default true. */
  sample?: boolean;
}

const POLL_INTERVAL_MS = 10;

/** The shell waits for the command and then writes what `times` says to descriptor 3. */
const TIMED = '"$@"; status=$?; times >&3; exit $status';

/**
 * Run a command to its end and measure it. Peaks come from polling VmHWM, the kernel's own high-water mark, so only
 * growth in the very last interval can be missed. (`/usr/bin/time -v` cannot tell a process from its children.)
 */
export async function measureProcess(
  command: string,
  args: readonly string[],
  options: MeasureOptions = {},
): Promise<Measured> {
  const start = performance.now();
  const child = spawn('sh', ['-c', TIMED, 'sh', command, ...args], {
    stdio: ['ignore', 'pipe', 'pipe', 'pipe'],
  });
  const output = { stdout: '', stderr: '', times: '' };
  for (const [index, name] of [
    [1, 'stdout'],
    [2, 'stderr'],
    [3, 'times'],
  ] as const) {
    const pipe = child.stdio[index] as NodeJS.ReadableStream;
    pipe.setEncoding('utf8').on('data', (text: string) => (output[name] += text));
  }
  const own = new Map<number, number>();
  const below = new Map<number, number>();
  const sample = (): void => {
    for (const pid of child.pid === undefined ? [] : children(child.pid)) {
      samplePeak(pid, own);
      for (const next of children(pid)) sampleTree(next, below);
    }
    const other = options.alsoSample === undefined ? undefined : readPid(options.alsoSample);
    if (other !== undefined) sampleTree(other, below);
  };
  const poll = options.sample === false ? undefined : setInterval(sample, POLL_INTERVAL_MS);
  const exited = { at: 0, atMs: 0 };
  child.once('exit', () => Object.assign(exited, { at: performance.now(), atMs: Date.now() }));
  try {
    await new Promise<void>((resolve, reject) => {
      child.once('error', reject);
      child.once('close', (code, signal) => {
        const line = [command, ...args].join(' ');
        if (code === 0) resolve();
        else reject(new Error(`${line}: ${signal ?? `exit ${code}`}\n${output.stdout}${output.stderr}`));
      });
    });
  } finally {
    clearInterval(poll);
  }
  return {
    seconds: (exited.at - start) / 1000,
    endedAtMs: exited.atMs,
    stdout: output.stdout,
    cpuSeconds: cpuSecondsOf(output.times),
    peakBytes: largest(own),
    childPeakBytes: largest(below),
  };
}

/** User and system time of the children of a shell, from the second line that its `times` wrote. */
export function cpuSecondsOf(times: string): number {
  const line = times.trim().split('\n')[1] ?? '';
  const parts = [...line.matchAll(/(\d+)m([\d.]+)s/g)];
  if (parts.length !== 2) throw new Error(`expected the output of times, not ${JSON.stringify(times)}`);
  return parts.reduce((sum, [, minutes, seconds]) => sum + Number(minutes) * 60 + Number(seconds), 0);
}

function largest(peaks: ReadonlyMap<number, number>): number | undefined {
  return peaks.size === 0 ? undefined : Math.max(...peaks.values());
}

function sampleTree(pid: number, peaks: Map<number, number>): void {
  samplePeak(pid, peaks);
  for (const child of children(pid)) sampleTree(child, peaks);
}

/**
 * The latest mark of a process counts: an earlier and larger one is its parent's, from between fork and exec.
 */
function samplePeak(pid: number, peaks: Map<number, number>): void {
  try {
    const status = readFileSync(`/proc/${pid}/status`, 'utf8');
    const match = /^VmHWM:\s+(\d+) kB$/m.exec(status);
    if (match !== null) peaks.set(pid, Number(match[1]) * 1024);
  } catch {
    // The process is gone, or this system has no /proc.
  }
}

function children(pid: number): number[] {
  try {
    return readdirSync(`/proc/${pid}/task`).flatMap((task) =>
      readFileSync(`/proc/${pid}/task/${task}/children`, 'utf8').split(' ').filter(Boolean).map(Number),
    );
  } catch {
    return []; // As above.
  }
}

function readPid(file: string): number | undefined {
  try {
    return Number(readFileSync(file, 'utf8')) || undefined;
  } catch {
    return undefined; // The process has not started yet.
  }
}

/** The middle value, or the mean of the two in the middle. */
export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  const upper = sorted[middle];
  if (upper === undefined) throw new RangeError('median of nothing');
  return sorted.length % 2 === 1 ? upper : ((sorted[middle - 1] as number) + upper) / 2;
}
