import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import type { ChildProcessByStdio } from 'node:child_process';
import { Agent, request } from 'node:http';
import type { IncomingMessage } from 'node:http';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import type { Readable } from 'node:stream';
import { test } from 'node:test';
import type { TestContext } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { sync, verify } from '../../src/index.ts';
import { untilGone } from '../cli/command.ts';
import { childrenOf, libraryChildren, until } from '../library/running-sync.ts';
import { column } from '../pages/databases.ts';
import { assertReplicaOf, tempDir } from '../support/compare.ts';

interface Answer {
  readonly status: number;
  /** The fields that the request asked for. */
  readonly body: {
    readonly id: number;
    readonly text: string;
    readonly syncs: number;
    readonly failures: number;
  };
}

/** The example application as a process, and clients of it. */
class Server {
  readonly origin: string;
  readonly replica: string;
  readonly child: ChildProcessByStdio<null, Readable, Readable>;
  readonly exited: Promise<number | null>;
  readonly #agent = new Agent({ keepAlive: true });
  #said = '';
  #complained = '';

  constructor(t: TestContext, environment: NodeJS.ProcessEnv = {}) {
    const folder = tempDir(t);
    this.origin = join(folder, 'app.db');
    this.replica = join(folder, 'replica.db');
    const program = join(import.meta.dirname, 'self-sync-server.ts');
    this.child = spawn(process.execPath, [program, this.origin, this.replica], {
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { ...process.env, ...environment },
    });
    this.child.stdout.setEncoding('utf8').on('data', (said: string) => (this.#said += said));
    this.child.stderr.setEncoding('utf8').on('data', (said: string) => (this.#complained += said));
    this.exited = new Promise((resolve) => this.child.once('close', resolve));
    t.after(() => {
      this.child.kill('SIGKILL');
      this.#agent.destroy();
    });
  }

  get pid(): number {
    return this.child.pid as number;
  }

  get complaints(): string {
    return this.#complained;
  }

  async listening(): Promise<void> {
    await until(() => {
      assert.equal(this.child.exitCode, null, this.#complained);
      return this.#said.includes('listening on');
    });
  }

  async send(method: string, path: string, body = ''): Promise<Answer> {
    const [, port = ''] = /listening on (\d+)/.exec(this.#said) ?? [];
    const response = await new Promise<IncomingMessage>((resolve, reject) => {
      request({ method, path, port, host: '127.0.0.1', agent: this.#agent }, resolve)
        .on('error', reject)
        .end(body);
    });
    return { status: response.statusCode ?? 0, body: JSON.parse(await text(response)) as Answer['body'] };
  }

  /** Resolves when the server has synced so many times in all, each time with success. */
  async synced(times: number): Promise<void> {
    for (;;) {
      const { body } = await this.send('GET', '/status');
      assert.equal(body.failures, 0, this.#complained);
      if (body.syncs >= times) return;
      await delay(20);
    }
  }
}

/** Clients that post one event after the other; every answer counts. */
class Load {
  /** Texts by the id that the server acknowledged. */
  readonly acknowledged = new Map<number, string>();
  readonly failures: unknown[] = [];
  readonly #clients: Promise<void>[];
  #stopping = false;

  constructor(server: Server, clients: number) {
    this.#clients = Array.from({ length: clients }, (_, client) => this.#run(server, client));
  }

  async stop(): Promise<void> {
    this.#stopping = true;
    await Promise.all(this.#clients);
  }

  async #run(server: Server, client: number): Promise<void> {
    for (let n = 0; !this.#stopping; n++) {
      const event = `event ${n} of client ${client} ${'.'.repeat(n % 300)}`;
      try {
        const { status, body } = await server.send('POST', '/events', event);
        assert.equal(status, 201, JSON.stringify(body));
        assert.equal(this.acknowledged.has(body.id), false, `${body.id} was given twice`);
        this.acknowledged.set(body.id, event);
        const read = await server.send('GET', `/events/${body.id}`);
        assert.equal(read.body.text, event, 'it reads what it wrote');
      } catch (error) {
        this.failures.push(error);
        return;
      }
    }
  }
}

function assertHolds(path: string, acknowledged: ReadonlyMap<number, string>): void {
  const events = new Map(
    column(path, 'SELECT json_array(id, text) FROM events').map(
      (row) => JSON.parse(row as string) as [number, string],
    ),
  );
  const lost = [...acknowledged].filter(([id, event]) => events.get(id) !== event);
  assert.deepEqual(lost, [], 'acknowledged, but not in the database');
}

function assertSound(path: string): void {
  assert.deepEqual(column(path, 'PRAGMA integrity_check'), ['ok']);
  assert.deepEqual(column(path, 'SELECT events FROM totals'), column(path, 'SELECT count(*) FROM events'));
}

test('a server that writes at full rate syncs itself all the while: no request fails, nothing is lost', async (t) => {
  const server = new Server(t);
  await server.listening();
  const load = new Load(server, 20);
  await server.synced(4);
  await load.stop();
  assert.deepEqual(load.failures, []);
  server.child.kill('SIGTERM');
  assert.equal(await server.exited, 0, server.complaints);
  assert.equal(server.complaints, '');
  t.diagnostic(`${load.acknowledged.size} events`);
  assert.ok(load.acknowledged.size > 20);
  assertHolds(server.origin, load.acknowledged);
  assert.deepEqual(column(server.origin, 'SELECT count(*) FROM events'), [load.acknowledged.size]);
  assertSound(server.origin);
  assertReplicaOf(server.origin, server.replica);
  assert.equal((await verify({ a: server.origin, b: server.replica })).same, true);
});

test('kill -9 of the server in the middle of a sync: no process is left, nothing is lost, the replica is whole', async (t) => {
  const server = new Server(t, { SQLSYNC_AGENT_PROCESS: '1' });
  await server.listening();
  const load = new Load(server, 10);
  await server.synced(1);
  let processes: number[] = [];
  await until(() => {
    processes = libraryChildren(server.pid).flatMap((child) => [child].concat(childrenOf(child)));
    return processes.length === 2;
  });
  server.child.kill('SIGKILL');
  await server.exited;
  await load.stop();
  await untilGone(processes);
  assertSound(server.replica);
  assertHolds(server.origin, load.acknowledged);
  assertSound(server.origin);
  await sync({ origin: server.origin, replica: server.replica });
  assertReplicaOf(server.origin, server.replica);
});
