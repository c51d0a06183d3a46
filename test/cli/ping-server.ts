import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { text } from 'node:stream/consumers';
import type { TestContext } from 'node:test';

/** A request as a ping service received it. */
export interface Ping {
  /** Method, path and query. */
  readonly request: string;
  readonly body: string;
  readonly authorization: string | undefined;
}

/** A real HTTP server that records its requests. */
export interface PingServer {
  readonly url: string;
  readonly pings: readonly Ping[];
}

/** `answer` gives the status for the n-th request from 0, or undefined to stay silent. */
export async function startPingServer(
  t: TestContext,
  answer: (n: number) => number | undefined | Promise<number> = () => 200,
): Promise<PingServer> {
  const pings: Ping[] = [];
  const server = createServer((request, response) => {
    void (async () => {
      const body = await text(request);
      const { authorization } = request.headers;
      const count = pings.push({ request: `${request.method} ${request.url}`, body, authorization });
      const status = await answer(count - 1);
      if (status !== undefined) response.writeHead(status).end('OK');
    })();
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.after(() => {
    server.closeAllConnections();
    server.close();
  });
  const { port } = server.address() as AddressInfo;
  return { url: `http://127.0.0.1:${port}`, pings };
}
