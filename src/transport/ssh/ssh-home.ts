import { homedir, userInfo } from 'node:os';

/**
 * The home whose `.ssh` OpenSSH uses: that of the password database, whatever HOME says. Under `sudo`, HOME may be
 * another user's: this user must not use that user's keys, nor write that user's `known_hosts`.
 */
export function sshHome(): string {
  try {
    return userInfo().homedir;
  } catch {
    return homedir(); // a user id without an entry, as in some containers: only HOME is left
  }
}
