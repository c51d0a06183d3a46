import { sanitizeLine } from '../../errors.ts';
import { cut } from '../../doctor/judge/words.ts';
import { explainRecord, HOLD_BOUNDS_MS } from '../../doctor/watch/explain.ts';
import type { Hold, WatchLine, WatchSample } from '../../doctor/watch/log.ts';
import { formatBytes, formatDuration } from '../terminal/format.ts';

/** What the screen tells of the past. */
const MEMORY_MS = 60_000;
const MAX_READERS = 10;
const BAR_COLUMNS = 40;

/** The live view of a database: what is now, and the last minute. Pure. */
export class WatchScreen {
  readonly #place: string;
  readonly #commands = new Map<number, string>();
  #samples: WatchSample[] = [];
  #unseen: string[] = [];

  constructor(place: string) {
    this.#place = sanitizeLine(place);
  }

  add(line: WatchLine): void {
    if (line.type === 'watch') this.#unseen = line.unseen.map((each) => `Not seen: ${sanitizeLine(each)}`);
    if (line.type === 'process') this.#commands.set(line.pid, sanitizeLine(line.command, 1000));
    if (line.type !== 'sample') return;
    this.#samples.push(line);
    this.#samples = this.#samples.filter(({ atMs }) => atMs > line.atMs - MEMORY_MS);
  }

  /** One line about the last interval, for a reader that is no terminal. */
  line(): string {
    const now = this.#samples.at(-1);
    if (now === undefined) return '';
    const parts = [timeOf(now.atMs), this.#writer(now.holder)];
    if (now.waiting.length > 0) parts.push(`${now.waiting.length} wait`);
    return [...parts, ...ratesOf([now]), `${now.readers.length} readers`].join(', ');
  }

  /** The whole view, as lines. */
  lines(): string[] {
    const now = this.#samples.at(-1);
    if (now === undefined) return [`${this.#place}: looking …`];
    const summary = explainRecord(this.#samples);
    const longest = summary.processes
      .flatMap((each) => each.longest ?? [])
      .toSorted((a, b) => b.forMs - a.forMs)[0];
    const readers = now.readers.toSorted((a, b) => b.forMs - a.forMs).slice(0, MAX_READERS);
    return [
      `${this.#place}   ${timeOf(now.atMs)}   (Ctrl-C ends)`,
      '',
      `Writer    ${this.#writer(now.holder)}`,
      `Waiting   ${now.waiting.length === 0 ? 'nobody that is seen to' : now.waiting.map((pid) => this.#name(pid)).join(', ')}`,
      `Longest   ${longest === undefined ? 'no hold in the last minute' : `${this.#name(longest.pid)} for ${formatDuration(longest.forMs)} at ${timeOf(longest.sinceMs)}, ${longest.waiting} waited`}`,
      `Rates     ${ratesOf(this.#samples.slice(-4)).join(', ') || 'no program has the WAL open'}`,
      `WAL       ${formatBytes(now.walBytes)}, ${summary.checkpoints} checkpoints in the last minute`,
      '',
      `Readers   ${now.readers.length === 0 ? 'none' : ''}`,
      ...readers.map(({ pid, forMs }) => `  ${formatDuration(forMs).padStart(12)}  ${this.#name(pid)}`),
      '',
      'Holds of the writer’s lock in the last minute',
      ...histogramLines(summary.histogram),
      ...this.#unseen,
    ];
  }

  #writer(hold: Hold | undefined): string {
    if (hold === undefined) return 'no writer';
    return `${this.#name(hold.pid)} for ${formatDuration(hold.forMs)}`;
  }

  #name(pid: number): string {
    const command = this.#commands.get(pid) ?? '';
    return command === '' ? `PID ${pid}` : `PID ${pid} ${cut(command, 20, 30)}`;
  }
}

export function histogramLines(histogram: readonly number[]): string[] {
  const most = Math.max(1, ...histogram);
  return histogram.map((count, i) => {
    const bound = HOLD_BOUNDS_MS[i];
    const name =
      bound === undefined
        ? `over ${formatDuration(HOLD_BOUNDS_MS.at(-1) ?? 0)}`
        : `< ${formatDuration(bound)}`;
    return `  ${name.padStart(12)}  ${String(count).padStart(7)}  ${'█'.repeat(Math.round((count / most) * BAR_COLUMNS))}`.trimEnd();
  });
}

function ratesOf(samples: readonly WatchSample[]): string[] {
  const seconds = samples.reduce((sum, { forMs }) => sum + forMs, 0) / 1000;
  if (seconds === 0 || samples.every(({ commits }) => commits === undefined)) return [];
  const commits = samples.reduce((sum, sample) => sum + (sample.commits ?? 0), 0);
  const bytes = samples.reduce((sum, sample) => sum + sample.walBytesWritten, 0);
  return [`${(commits / seconds).toFixed(0)} commits/s`, `${formatBytes(bytes / seconds)}/s into the WAL`];
}

export function timeOf(ms: number): string {
  return new Date(ms).toTimeString().slice(0, 8);
}
