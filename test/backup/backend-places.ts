import { mkdirSync, mkdtempSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { LocalBackend } from '../../src/backup/backends/backend.ts';
import { AgentBackend } from '../../src/backup/backends/agent/agent-backend.ts';
import { DirectoryBackend } from '../../src/backup/backends/directory-backend.ts';
import { S3Backend } from '../../src/backup/backends/s3/s3-backend.ts';
import { SftpBackend } from '../../src/backup/backends/sftp/sftp-backend.ts';
import { PROGRAM } from '../cli/command.ts';
import { makeBucket } from '../support/s3-bucket.ts';
import { GATEWAY_KEYS, startGateway, whyNoGateway } from '../support/s3-gateway.ts';
import { startServerThread } from '../support/s3-server-thread.ts';
import { SERVER_KEYS } from '../support/s3-server.ts';
import { SSHD_MISSING, startSshd } from '../support/sshd.ts';
import { ClockedBackend } from './clocked-backend.ts';

type After = (work: () => unknown) => void;

/** Faster than the usual first pause: such histories have many faults. */
const LIMITS = { firstPauseMs: 20 };

/** A kind of place where stores lie. */
export interface BackendPlace {
  readonly name: string;
  /** True if backups rely on what this host remembers. */
  readonly isElsewhere: boolean;
  /**
   * Returns what gives an empty place each time, or why there is none here.
   *
   * @param folder - for what lies on this host.
   */
  open(folder: string, after: After): Promise<(() => LocalBackend) | string>;
}

/** Real places with this process's clock, which a test may set: they cost no more than their protocols. */
export const BACKEND_PLACES: readonly BackendPlace[] = [
  {
    name: 'in a folder',
    isElsewhere: false,
    open: (folder) =>
      Promise.resolve(() => new ClockedBackend(new DirectoryBackend(mkdtempSync(join(folder, 'store-'))))),
  },
  { name: 'in S3', isElsewhere: true, open: (_, after) => openS3(after) },
  { name: 'by SFTP', isElsewhere: true, open: openSftp },
  { name: 'through an agent', isElsewhere: true, open: openByAgent },
];

/** Ceph's gateway, which takes 15 s to start. */
export const GATEWAY_PLACE: BackendPlace = {
  name: 'at a real S3 service',
  isElsewhere: true,
  async open(_, after) {
    const why = whyNoGateway();
    if (why !== false) return why;
    setVariables(GATEWAY_KEYS, after);
    const gateway = await startGateway();
    after(() => gateway.stop());
    let count = 0;
    await makeBucket(`s3:${gateway.url}/bucket/stores`);
    const address = (): string => `s3:${gateway.url}/bucket/stores/${++count}`;
    return () => new ClockedBackend(new S3Backend({ address: address(), limits: LIMITS }));
  },
};

/** The test server, whose requests may take their time and fail now and then. */
export async function openS3(
  after: After,
  flaky?: { readonly delayMs: number; readonly seed: number },
): Promise<() => LocalBackend> {
  const { accessKeyId, secretAccessKey } = SERVER_KEYS;
  setVariables({ AWS_ACCESS_KEY_ID: accessKeyId, AWS_SECRET_ACCESS_KEY: secretAccessKey }, after);
  const { address } = await startServerThread({ after }, flaky === undefined ? {} : { flaky });
  let count = 0;
  return () => new ClockedBackend(new S3Backend({ address: `${address}/${++count}`, limits: LIMITS }));
}

/** A real sshd with internal-sftp. */
async function openSftp(folder: string, after: After): Promise<(() => LocalBackend) | string> {
  const sshd = await startSshd({ config: ['Subsystem sftp internal-sftp'] });
  if (sshd === undefined) return SSHD_MISSING;
  after(() => sshd.stop());
  setVariables({ SQLSYNC_RSH: `ssh -F ${sshd.sshConfigFile}` }, after);
  mkdirSync(folder, { recursive: true });
  return () => {
    const backend = new SftpBackend(`sftp:sqlsync-test:${mkdtempSync(join(folder, 'store-'))}`);
    after(() => backend.close());
    return new ClockedBackend(backend);
  };
}

/** A sqlsync on this host, without SSH. */
function openByAgent(folder: string, after: After): Promise<() => LocalBackend> {
  mkdirSync(folder, { recursive: true });
  const shell = join(folder, 'shell');
  writeFileSync(shell, `#!/bin/sh\nexec '${process.execPath}' '${PROGRAM}' agent\n`, { mode: 0o755 });
  setVariables({ SQLSYNC_RSH: shell }, after);
  return Promise.resolve(() => {
    const backend = new AgentBackend(`vault:${mkdtempSync(join(folder, 'store-'))}`);
    after(() => backend.close());
    return new ClockedBackend(backend);
  });
}

function setVariables(variables: Readonly<Record<string, string>>, after: After): void {
  for (const [name, value] of Object.entries(variables)) {
    const before = process.env[name];
    process.env[name] = value;
    after(() => {
      if (before === undefined) delete process.env[name];
      else process.env[name] = before;
    });
  }
}
