import { closeSync, existsSync, openSync, rmSync, writeFileSync } from 'node:fs';
import { tryExclusiveLock } from '../../src/sqlite/locks/exclusive-lock.ts';
import { LockFileError } from '../../src/sqlite/locks/lock-file.ts';

/**
 * `once PATH` tries the lock and prints the outcome; `hold PATH` then waits for its end. `storm PATH COUNT`
 * takes it COUNT times, damages its file before each attempt, and fails if another process holds it too.
 */
const [mode, path = '', count = '0'] = process.argv.slice(2);

if (mode === 'storm') storm(path, Number(count));
else {
  process.stdout.write(`${attempt(path)}\n`);
  if (mode === 'hold') setInterval(() => {}, 1000);
}

function attempt(lockPath: string): string {
  try {
    return tryExclusiveLock(lockPath) === undefined ? 'busy' : 'taken';
  } catch (error) {
    if (!(error instanceof LockFileError)) throw error;
    return `${error.message} | ${error.hint}`;
  }
}

function storm(lockPath: string, wanted: number): void {
  const inside = `${lockPath}.inside`;
  for (let taken = 0; taken < wanted;) {
    // Only an existing file has a name whose holder may be running: here one in four is made anew.
    if (Math.random() < 0.25 || !existsSync(lockPath))
      writeFileSync(lockPath, 'no lock of ours', { flag: 'a' });
    const lock = tryExclusiveLock(lockPath);
    if (lock === undefined) continue;
    closeSync(openSync(inside, 'wx'));
    rmSync(inside);
    lock.release();
    taken++;
  }
  process.stdout.write('alone\n');
}
