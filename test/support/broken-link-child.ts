/**
 * A remote shell that runs `sqlsync agent` here over a link that breaks: each of the first connections carries only so
 * many bytes to the near side ('pull') or from it ('push'), and then ends. Arguments: log way connections bytes; the log
 * gets a line for each connection.
 */
import { spawn } from 'node:child_process';
import type { StdioOptions } from 'node:child_process';
import { appendFileSync, readFileSync } from 'node:fs';
import { pipeline, Transform } from 'node:stream';
import { CLI } from './relay-kill.ts';

const [log = '', way, connections, bytes] = process.argv.slice(2);
appendFileSync(log, `${process.pid}\n`);
const breaks = readFileSync(log, 'utf8').split('\n').length - 1 <= Number(connections);
const stdio: StdioOptions = !breaks
  ? 'inherit'
  : way === 'pull'
    ? ['inherit', 'pipe', 'inherit']
    : ['pipe', 'inherit', 'inherit'];
const agent = spawn(process.execPath, [CLI, 'agent'], { stdio });
agent.on('exit', (status) => process.exit(status ?? 1));

/** Lets the first bytes through and ends. */
function first(limit: number): Transform {
  let left = limit;
  return new Transform({
    transform(chunk: Buffer, _encoding, done) {
      if (left <= 0) return done();
      this.push(chunk.subarray(0, left));
      left -= chunk.length;
      if (left <= 0) this.push(null);
      done();
    },
  });
}

if (breaks) {
  const ended = (): void => {
    if (way === 'pull') agent.kill('SIGKILL');
  };
  if (agent.stdout !== null) pipeline(agent.stdout, first(Number(bytes)), process.stdout, ended);
  if (agent.stdin !== null) pipeline(process.stdin, first(Number(bytes)), agent.stdin, ended);
}
