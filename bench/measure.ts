import { spawn } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';

export interface Measured {
  /** From the start of the process to its exit. */
  seconds: number;
  stdout: string;
  /** Peak resident set of the process itself; undefined where there is no /proc. */
  peakBytes: number | undefined;
  /** The same of the largest process that it started; undefined where there was none. */
  childPeakBytes: number | undefined;
}

const POLL_INTERVAL_MS = 10;

/**
 * Run a command to its end and measure it. Peaks come from polling VmHWM, the kernel's own high-water mark, so only
 * growth in the very last interval can be missed. (`/usr/bin/time -v` cannot tell a process from its children.)
 */
export async function measureProcess(command: string, args: readonly string[]): Promise<Measured> {
  const start = performance.now();
  const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'] });
  const output = { stdout: '', stderr: '' };
  for (const name of ['stdout', 'stderr'] as const) {
    child[name].setEncoding('utf8').on('data', (text: string) => (output[name] += text));
  }
  const peaks = new Map<number, number>();
  const { pid } = child;
  const poll = setInterval(() => pid !== undefined && samplePeaks(pid, peaks), POLL_INTERVAL_MS);
  let exitedAt = 0;
  child.once('exit', () => (exitedAt = performance.now()));
  try {
    await new Promise<void>((resolve, reject) => {
      child.once('error', reject);
      child.once('close', (code, signal) => {
        if (code === 0) resolve();
        else
          reject(new Error(`${[command, ...args].join(' ')}: ${signal ?? `exit ${code}`}\n${output.stderr}`));
      });
    });
  } finally {
    clearInterval(poll);
  }
  const own = pid === undefined ? undefined : peaks.get(pid);
  if (pid !== undefined) peaks.delete(pid);
  return {
    seconds: (exitedAt - start) / 1000,
    stdout: output.stdout,
    peakBytes: own,
    childPeakBytes: peaks.size === 0 ? undefined : Math.max(...peaks.values()),
  };
}

/** The latest mark of each process wins: a larger one before it is that of the parent, between fork and exec. */
function samplePeaks(pid: number, peaks: Map<number, number>): void {
  try {
    const status = readFileSync(`/proc/${pid}/status`, 'utf8');
    const match = /^VmHWM:\s+(\d+) kB$/m.exec(status);
    if (match !== null) peaks.set(pid, Number(match[1]) * 1024);
    for (const task of readdirSync(`/proc/${pid}/task`)) {
      const children = readFileSync(`/proc/${pid}/task/${task}/children`, 'utf8');
      for (const child of children.split(' ').filter(Boolean)) samplePeaks(Number(child), peaks);
    }
  } catch {
    // The process is gone, or this system has no /proc.
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
