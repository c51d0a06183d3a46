import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { SFTP_SERVER_MISSING, startFlakySftp } from '../../support/flaky-sftp-host.ts';
import { SERVER_KEYS } from '../../support/s3-server.ts';
import { startServerThread } from '../../support/s3-server-thread.ts';

/** For each request of SFTP, of which a put of a store is about ten: one operation in twenty fails. */
const SFTP_FLAW_CHANCE = 0.005;

const PASSWORD = 'the password of the soak';

/** A store that lies elsewhere, and how commands reach it. */
export interface SoakPlace {
  readonly name: string;
  readonly address: string;
  readonly isEncrypted: boolean;
}

/** Places whose services take their time, and fail now and then. */
export interface SoakPlaces {
  readonly places: readonly SoakPlace[];
  /** For the commands of each host: one uses the SSH built in, the other OpenSSH's. */
  readonly envs: readonly NodeJS.ProcessEnv[];
  readonly passwordFile: string;
  /** The number of failures so far. */
  failures(): Promise<number>;
  /** From now on nothing fails. */
  calm(): Promise<void>;
  stop(): Promise<void>;
}

/** A bucket, and an SFTP server behind a real sshd, if there is one; in each a plain and an encrypted store. */
export async function startPlaces(
  folder: string,
  { delayMs, seed }: { readonly delayMs: number; readonly seed: number },
): Promise<SoakPlaces> {
  const cleanups: (() => unknown)[] = [];
  const after = (work: () => unknown): void => void cleanups.push(work);
  const s3 = await startServerThread({ after }, { flaky: { delayMs, seed } });
  const host = await startFlakySftp(folder, { delayMs, chance: SFTP_FLAW_CHANCE });
  if (host === undefined) process.emitWarning(SFTP_SERVER_MISSING);
  const sftp = host === undefined ? [] : [['SFTP', `sftp:sqlsync-test:${folder}/sftp`] as const];
  const places = [['S3', s3.address] as const, ...sftp].flatMap(([service, address]) => [
    { name: `${service}, plain`, address: `${address}/plain`, isEncrypted: false },
    { name: `${service}, encrypted`, address: `${address}/encrypted`, isEncrypted: true },
  ]);
  const passwordFile = join(folder, 'password');
  writeFileSync(passwordFile, PASSWORD);
  const keys = {
    AWS_ACCESS_KEY_ID: SERVER_KEYS.accessKeyId,
    AWS_SECRET_ACCESS_KEY: SERVER_KEYS.secretAccessKey,
  };
  return {
    places,
    envs: [host?.env, host?.rshEnv].map((env) => Object.assign({}, keys, env)),
    passwordFile,
    failures: async () => (await s3.failures()) + (host?.failures() ?? 0),
    calm: async () => {
      writeFileSync(join(folder, 'calm'), '');
      await s3.calm();
    },
    stop: async () => {
      for (const work of cleanups) await work();
      await host?.stop();
    },
  };
}
