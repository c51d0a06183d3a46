import { homedir, userInfo } from 'node:os';

/**
 * The home whose `.ssh` OpenSSH uses: that of the password database, whatever HOME says. Under `sudo` HOME may be
 * another user's, whose keys this user is not to take and whose `known_hosts` it is not to write.
 */
export function sshHome(): string {
  try {
    return userInfo().homedir;
  } catch {
    return homedir(); // a user id without an entry, as in some containers: HOME is all there is
  }
}
