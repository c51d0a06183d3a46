/** The test server of S3 in a thread of its own, for readers that wait without giving up control. */
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads';
import type { TestContext } from 'node:test';
import { Random } from '../../fixtures/random.ts';
import { S3Server } from './s3-server.ts';
import type { Twist } from './s3-server.ts';

export interface ThreadServerOptions {
  readonly ignoresRanges?: boolean;
  /** For each GET. */
  readonly twist?: Twist;
  /** Each answer takes so long, and one in twenty fails, by the seed: before its effect, after it, or half-way. */
  readonly flaky?: { readonly delayMs: number; readonly seed: number };
}

/** What becomes of a request at a service that fails now and then. */
const FLAWS: readonly Twist[] = [
  { status: 503, code: 'SlowDown' },
  { status: 500, code: 'InternalError', takesEffect: true },
  { cutsAfter: 0 },
  { cutsAfter: 20 },
];

const FLAW_CHANCE = 0.05;

export interface ThreadServer {
  readonly address: string;
  /** The ranges of all GETs so far. */
  ranges(): Promise<(string | undefined)[]>;
  /** How many requests of a flaky service failed so far. */
  failures(): Promise<number>;
  /** From now on none fails. */
  calm(): Promise<void>;
}

type Question = 'ranges' | 'failures' | 'calm';

/** Starts one that ends with the test. */
export async function startServerThread(
  t: Pick<TestContext, 'after'>,
  options: ThreadServerOptions = {},
): Promise<ThreadServer> {
  const worker = new Worker(new URL(import.meta.url), { workerData: options });
  t.after(() => worker.terminate());
  const next = <T>(): Promise<T> => new Promise((resolve) => worker.once('message', resolve));
  const address = await next<string>();
  const ask = <T>(question: Question): Promise<T> => {
    const answer = next<T>();
    // oxlint-disable-next-line unicorn/require-post-message-target-origin -- a thread, not a window
    worker.postMessage(question);
    return answer;
  };
  return {
    address,
    ranges: () => ask('ranges'),
    failures: () => ask('failures'),
    calm: () => ask('calm'),
  };
}

if (!isMainThread && parentPort !== null) {
  const port = parentPort;
  const { ignoresRanges = false, twist, flaky } = workerData as ThreadServerOptions;
  const server = await S3Server.start({ after: () => {} });
  server.ignoresRanges = ignoresRanges;
  server.twist = ({ operation }) => (operation === 'get' ? twist : undefined);
  let failures = 0;
  let isCalm = false;
  if (flaky !== undefined) {
    const random = new Random(flaky.seed);
    server.delayMs = flaky.delayMs;
    server.twist = () => {
      // Only the last one is looked at.
      server.requests.length = 0;
      if (isCalm || !random.chance(FLAW_CHANCE)) return undefined;
      failures++;
      return random.pick(FLAWS);
    };
  }
  const answers: Readonly<Record<Question, () => unknown>> = {
    ranges: () =>
      server.requests.filter(({ operation }) => operation === 'get').map(({ headers }) => headers.range),
    failures: () => failures,
    calm: () => void (isCalm = true),
  };
  port.on('message', (question: Question) => port.postMessage(answers[question]()));
  port.postMessage(server.address);
}
