import { readFileSync } from 'node:fs';

/** The user with this id, for messages: `root (uid 0)`, or `uid 1001` if the system has no name for it. */
export function userName(uid: number): string {
  const name = accountName(uid);
  return name === undefined ? `uid ${uid}` : `${name} (uid ${uid})`;
}

/** True if a file of this owner belongs to this process: root may do with every file what its owner may. */
export function isOwn(uid: number): boolean {
  const own = process.geteuid?.();
  return own === undefined || own === 0 || own === uid;
}

/** Node.js can only look up its own user; accounts that only a directory service lists have no line here. */
function accountName(uid: number): string | undefined {
  try {
    const lines = readFileSync('/etc/passwd', 'utf8').split('\n');
    return lines.map((line) => line.split(':')).find((fields) => fields[2] === String(uid))?.[0];
  } catch {
    return undefined;
  }
}
