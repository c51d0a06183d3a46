import './environment.ts';
import { execFile } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import type { AddressInfo } from 'node:net';
import { delimiter, join } from 'node:path';
import { promisify } from 'node:util';

const PROGRAMS = ['radosgw', 'ceph-mon', 'ceph-osd', 'ceph-mgr', 'ceph'];

/** A real S3 service on this host. */
export interface Gateway {
  /** `http://127.0.0.1:PORT`. */
  readonly url: string;
  readonly port: number;
  /** Kills its processes and removes what it had. */
  stop(): Promise<void>;
}

/** The environment of a user of the gateway who may do everything with its buckets. */
export const GATEWAY_KEYS = { AWS_ACCESS_KEY_ID: 'testkey', AWS_SECRET_ACCESS_KEY: 'testsecret' };

/** A user without any right, until a bucket's policy grants one. */
export const OTHER_KEYS = { AWS_ACCESS_KEY_ID: 'otherkey', AWS_SECRET_ACCESS_KEY: 'othersecret' };

/** Why no gateway can run here, to skip its tests with; false if one can. */
export function whyNoGateway(): string | false {
  const folders = (process.env['PATH'] ?? '').split(delimiter);
  const missing = PROGRAMS.filter((name) => !folders.some((folder) => existsSync(join(folder, name))));
  if (missing.length > 0)
    return `NOT TESTED AGAINST A REAL S3 SERVICE: ${missing.join(', ')} missing (apt-get install radosgw ceph-mon ceph-osd ceph-mgr)`;
  if (process.getuid?.() !== 0) return 'NOT TESTED AGAINST A REAL S3 SERVICE: its gateway needs root';
  return false;
}

interface GatewayOptions {
  readonly onDisk?: boolean;
}

/** Takes about 15 s. By default everything lies in memory, which takes some hundred MB; `onDisk` has a file instead. */
export async function startGateway(options: GatewayOptions = {}): Promise<Gateway> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await startOnce(options);
    } catch (error) {
      // Another process can take the ports between the choice of them and the start.
      if (attempt === 3) throw error;
    }
  }
}

async function startOnce({ onDisk = false }: GatewayOptions): Promise<Gateway> {
  const folder = mkdtempSync(join(process.env['TMPDIR'] ?? '/tmp', 'sqlsync-s3-'));
  const stop = async (): Promise<void> => {
    const pids = readdirSync(folder)
      .filter((name) => name.endsWith('.pid'))
      .map((name) => Number(readFileSync(join(folder, name), 'utf8')));
    for (const pid of pids) kill(pid);
    while (pids.some((pid) => existsSync(`/proc/${pid}`))) await new Promise((done) => setTimeout(done, 50));
    rmSync(folder, { recursive: true, force: true });
  };
  try {
    const [port, monitorPort] = [await freePort(), await freePort()];
    const script = join(import.meta.dirname, 's3-gateway.sh');
    await promisify(execFile)('bash', [script, folder, String(port), String(monitorPort)], {
      timeout: 180_000,
      env: { ...process.env, OBJECT_STORE: onDisk ? 'bluestore' : 'memstore' },
    });
    return { url: `http://127.0.0.1:${port}`, port, stop };
  } catch (error) {
    await stop();
    throw error;
  }
}

function kill(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch {
    // It has ended by itself.
  }
}

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
  const { port } = server.address() as AddressInfo;
  await new Promise((done) => server.close(done));
  return port;
}
