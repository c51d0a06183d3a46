import { setTimeout as pause } from 'node:timers/promises';
import { STATUS } from './packets.ts';
import { SftpRefused } from './sftp-client.ts';

/** Long enough for a file system over a network to come back from a hiccup. */
const PAUSE_MS = 250;

/**
 * Reads, and once more if the server refuses without a reason. OpenSSH says the same of a bad sector and of a read that
 * fails for a moment, and only the first is damage.
 */
export async function readTwice<T>(read: () => Promise<T>): Promise<T> {
  try {
    return await read();
  } catch (error) {
    if (!(error instanceof SftpRefused) || error.status !== STATUS.failure) throw error;
  }
  await pause(PAUSE_MS);
  return read();
}
