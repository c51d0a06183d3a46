import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { test } from 'node:test';
import { ServiceHere, events, eventually, untilEvents } from './running-service.ts';
import { until } from '../cli/command.ts';

const LACKING = [
  ['systemd-notify', '--version'],
  ['python3', '--version'],
].find(([program = '', option = '']) => spawnSync(program, [option]).status !== 0)?.[0];

/** Node.js has no datagrams of Unix sockets. Prints each that comes, and a line when it listens. */
const LISTENER = `
import socket, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.bind(sys.argv[1])
print('listening', flush=True)
while True:
    print(s.recv(4096).decode().replace('\\n', ' '), flush=True)
`;

test(
  'systemd is told when the service is ready, reloads, lives and stops',
  { skip: LACKING === undefined ? false : `NOT TESTED: there is no ${LACKING} here` },
  async (t) => {
    const here = new ServiceHere(t);
    here.database('a.db');
    here.configure('databases: [{ path: a.db, schedule: 1h, targets: [{ replica: copies/a.db }] }]\n');
    const socket = here.path('notify');
    const listener = spawn('python3', ['-c', LISTENER, socket], { stdio: ['ignore', 'pipe', 'inherit'] });
    t.after(() => listener.kill('SIGKILL'));
    let said = '';
    listener.stdout.setEncoding('utf8').on('data', (text: string) => (said += text));
    await eventually(() => said.includes('listening') && existsSync(socket), 'the listener listens');
    const service = await here.start({ env: { NOTIFY_SOCKET: socket, WATCHDOG_USEC: '1000000' } });
    await eventually(() => said.includes('READY=1'), 'ready');
    await eventually(() => said.split('WATCHDOG=1').length > 3, 'signs of life');
    await untilEvents(service, 'copied', 'copies/a.db');
    service.child.kill('SIGHUP');
    await until(() => events(service, 'reloaded').length === 1, service);
    await eventually(() => /RELOADING=1[^]*READY=1/.test(said), 'a reload, and ready again');
    await here.stop(service);
    await eventually(() => said.includes('STOPPING=1'), 'stopping');
    // On a machine that stands still for seconds a report may be given up.
    for (const { text } of events(service, 'warning')) assert.match(String(text), /systemd gets no reports/);
  },
);
