import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync } from 'node:fs';
import { join } from 'node:path';
import type { TestContext } from 'node:test';

/** A real agent that holds these keys, with its socket below `folder`; returns the socket. */
export async function startAgent(context: TestContext, folder: string, keys: string[]): Promise<string> {
  const socket = join(mkdtempSync(join(folder, 'agent-')), 'socket');
  const agent = spawn('ssh-agent', ['-D', '-a', socket], { stdio: ['ignore', 'pipe', 'inherit'] });
  context.after(() => agent.kill());
  await once(agent.stdout, 'data'); // The agent prints its socket once it listens.
  execFileSync('ssh-add', ['-q', ...keys], {
    env: { ...process.env, SSH_AUTH_SOCK: socket },
    stdio: 'ignore',
  });
  return socket;
}
