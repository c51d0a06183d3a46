import { connect, createServer } from 'node:net';
import type { AddressInfo, Server, Socket } from 'node:net';

/** What went to an S3 service and back, in the classes in which AWS bills requests. */
export interface Traffic {
  /** GET and HEAD of a file. */
  reads: number;
  /** PUT, POST, and lists. */
  writes: number;
  /** Free. */
  deletes: number;
  bytesUp: number;
  bytesDown: number;
}

const REQUEST = /(GET|HEAD|PUT|POST|DELETE) (\/\S*) HTTP\/1\.1\r\n/g;

/** The most bytes of a request line that may be split over two pieces. */
const TAIL_BYTES = 2048;

/** Stands before an HTTP service: delays both directions, and counts. */
export class CountingProxy {
  readonly #server: Server;
  readonly #target: number;
  readonly #delayMs: number;
  #counted: Traffic = none();

  static async start(targetPort: number, roundTripMs: number): Promise<CountingProxy> {
    const proxy = new CountingProxy(targetPort, roundTripMs / 2);
    await new Promise<void>((done) => proxy.#server.listen(0, '127.0.0.1', done));
    return proxy;
  }

  private constructor(targetPort: number, delayMs: number) {
    this.#target = targetPort;
    this.#delayMs = delayMs;
    this.#server = createServer((near) => this.#serve(near));
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  /** What it counted since the last call. */
  take(): Traffic {
    const counted = this.#counted;
    this.#counted = none();
    return counted;
  }

  close(): void {
    this.#server.close();
  }

  #serve(near: Socket): void {
    const far = connect(this.#target, '127.0.0.1');
    let tail = '';
    this.#pass(near, far, (piece) => {
      this.#counted.bytesUp += piece.length;
      const text = tail + piece.toString('latin1');
      let end = 0;
      for (const { 1: method = '', 2: path = '', index } of text.matchAll(REQUEST)) {
        this.#counted[classOf(method, path)]++;
        end = index + 1;
      }
      tail = text.slice(Math.max(end, text.length - TAIL_BYTES));
    });
    this.#pass(far, near, (piece) => void (this.#counted.bytesDown += piece.length));
  }

  #pass(from: Socket, to: Socket, see: (piece: Buffer) => void): void {
    from.setNoDelay(true);
    from.on('data', (piece: Buffer) => {
      see(piece);
      this.#later(() => void (to.destroyed || to.write(piece)));
    });
    from.on('close', () => this.#later(() => to.destroy()));
    from.on('error', () => {});
  }

  /** Timers of one delay fire in their order. */
  #later(work: () => void): void {
    if (this.#delayMs === 0) work();
    else setTimeout(work, this.#delayMs);
  }
}

function none(): Traffic {
  return { reads: 0, writes: 0, deletes: 0, bytesUp: 0, bytesDown: 0 };
}

function classOf(method: string, path: string): 'reads' | 'writes' | 'deletes' {
  if (method === 'DELETE') return 'deletes';
  if (method === 'PUT' || method === 'POST') return 'writes';
  return method === 'GET' && /[?&](?:list-type|prefix|delimiter|versions|location)\b/.test(path)
    ? 'writes'
    : 'reads';
}
