/**
 * Preloaded (`node --import`) into the command, to kill it when it is about to give a tree file its name, or just
 * after: `before o` or `after r` in SQLSYNC_TEST_KILL_AT, with the first letter of the file.
 */
import fs from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';
import { basename, dirname } from 'node:path';

const [when, letter] = (process.env['SQLSYNC_TEST_KILL_AT'] ?? '').split(' ');
const { renameSync } = fs;
fs.renameSync = (from, to) => {
  const path = String(to);
  const isMeant = basename(dirname(path)) === 'trees' && basename(path).startsWith(`${letter}-`);
  if (!isMeant || when === 'after') renameSync(from, to);
  if (isMeant) process.kill(process.pid, 'SIGKILL');
};
syncBuiltinESMExports();
