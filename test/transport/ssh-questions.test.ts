import assert from 'node:assert/strict';
import { execFileSync, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import type { TestContext } from 'node:test';
import type { AuthContext } from 'ssh2';
import { SqlsyncError } from '../../src/errors.ts';
import { connectSsh } from '../../src/transport/ssh/ssh.ts';
import type { SshOptions } from '../../src/transport/ssh/ssh.ts';
import { startHost } from '../support/ssh-host.ts';
import { SSHD_MISSING, makeSshKey, startSshd } from '../support/sshd.ts';
import type { Sshd } from '../support/sshd.ts';
import { digest } from './transport-suite.ts';

const started = await startSshd();
const skip = started === undefined ? SSHD_MISSING : false;
const sshd = started as Sshd; // where it is missing, every test that needs it is skipped
const folder = mkdtempSync(join(tmpdir(), 'sqlsync-questions-'));
after(async () => {
  await started?.stop();
  rmSync(folder, { recursive: true });
});

let count = 0;

/** Gives these answers, one after the other, and keeps the questions. */
class Answers {
  readonly asked: { question: string; echo: boolean }[] = [];
  readonly #answers: string[];

  constructor(...answers: string[]) {
    this.#answers = answers;
  }

  readonly ask = (question: string, echo: boolean): Promise<string> => {
    this.asked.push({ question, echo });
    const answer = this.#answers.shift();
    if (answer !== undefined) return Promise.resolve(answer);
    return Promise.reject(new SqlsyncError('INTERRUPTED', 'no answer'));
  };
}

function optionsFor(host: { port: number; knownHostsFile: string }, more: Partial<SshOptions>): SshOptions {
  return {
    host: '127.0.0.1',
    port: host.port,
    user: sshd.user,
    configFile: 'none',
    knownHostsFiles: [host.knownHostsFile],
    identityFiles: [],
    agentSocket: false,
    command: 'echo hello',
    ask: false,
    ...more,
  };
}

async function login(
  context: TestContext,
  host: { port: number; knownHostsFile: string },
  more: Partial<SshOptions>,
): Promise<void> {
  const transport = await connectSsh(optionsFor(host, more));
  context.after(() => transport.terminate());
  assert.equal((await digest(transport.input)).byteCount, 6);
}

/** A copy of the key that may log in, with a passphrase. */
function lockedKey(type: 'openssh' | 'pem' = 'openssh'): string {
  const path = join(folder, `locked_${count++}`);
  writeFileSync(path, readFileSync(sshd.clientKey), { mode: 0o600 });
  if (type === 'pem') {
    rmSync(path);
    execFileSync('ssh-keygen', [
      '-q',
      '-t',
      'rsa',
      '-b',
      '2048',
      '-m',
      'PEM',
      '-N',
      'open sesame',
      '-f',
      path,
    ]);
    writeFileSync(sshd.authorizedKeysFile, readFileSync(`${path}.pub`), { flag: 'a' });
    rmSync(`${path}.pub`); // Nothing but the passphrase tells which key it is.
  } else execFileSync('ssh-keygen', ['-q', '-p', '-N', 'open sesame', '-f', path]);
  return path;
}

describe('the passphrase of a key', { skip }, () => {
  for (const type of ['openssh', 'pem'] as const) {
    test(`the user is asked for the passphrase of a key until it fits, and the login works (${type})`, async (context) => {
      const key = lockedKey(type);
      const answers = new Answers('wrong', 'open sesame');
      await login(context, sshd, { identityFiles: [key], ask: answers.ask });
      const question = { question: `Passphrase for the key ${key}: `, echo: false };
      assert.deepEqual(answers.asked, [question, question]);
    });
  }

  test('nobody is asked for the passphrase of a key that the host does not accept', async () => {
    const key = makeSshKey(join(folder, `stranger_${count++}`), 'ed25519', 'open sesame');
    const answers = new Answers('open sesame');
    const attempt = connectSsh(optionsFor(sshd, { identityFiles: [key], ask: answers.ask }));
    await assert.rejects(attempt, { code: 'AUTH_FAILED' });
    assert.deepEqual(answers.asked, []);
  });

  test('nobody is asked for the passphrase of a key if another key logs in before it', async (context) => {
    const answers = new Answers();
    await login(context, sshd, { identityFiles: [sshd.clientKey, lockedKey()], ask: answers.ask });
    assert.deepEqual(answers.asked, []);
  });

  test('a passphrase that is wrong three times is AUTH_FAILED, and the next key is tried', async (context) => {
    const key = lockedKey();
    const answers = new Answers('a', 'b', 'c');
    await assert.rejects(connectSsh(optionsFor(sshd, { identityFiles: [key], ask: answers.ask })), {
      code: 'AUTH_FAILED',
      message: /no passphrase that fits/,
    });
    assert.equal(answers.asked.length, 3);
    const skipped = new Answers('');
    await login(context, sshd, { identityFiles: [key, sshd.clientKey], ask: skipped.ask });
    assert.equal(skipped.asked.length, 1);
  });

  test('a passphrase that the user refuses to give ends the login as INTERRUPTED', async () => {
    const attempt = connectSsh(optionsFor(sshd, { identityFiles: [lockedKey()], ask: new Answers().ask }));
    await assert.rejects(attempt, { code: 'INTERRUPTED' });
  });

  test('the answer to a question may take longer than the time limit for a login', async (context) => {
    const key = lockedKey();
    // On a busy machine the login itself may take longer than the shortest of these limits.
    const limitsMs = [1000, 5000, 25_000];
    for (const connectTimeoutMs of limitsMs) {
      const ask = (): Promise<string> =>
        new Promise((resolve) => setTimeout(() => resolve('open sesame'), connectTimeoutMs + 500));
      try {
        return await login(context, sshd, { identityFiles: [key], ask, connectTimeoutMs });
      } catch (error) {
        if (connectTimeoutMs === limitsMs.at(-1)) throw error;
      }
    }
  });
});

describe('a host that asks for a password', () => {
  const byPassword = (request: AuthContext): void => {
    if (request.method === 'password' && request.password === 'secret') request.accept();
    else request.reject(['password']);
  };

  test('a host that wants a password gets it from the user, who is asked again if it is wrong', async (context) => {
    const answers = new Answers('guess', 'secret');
    const host = await startHost(context, folder, byPassword);
    await login(context, host, { ask: answers.ask });
    assert.equal(answers.asked.length, 2);
    assert.match(answers.asked[0]?.question ?? '', /^Password of .*@127\.0\.0\.1:\d+: $/);
    assert.equal(answers.asked[0]?.echo, false);
  });

  test('a password is AUTH_FAILED after three wrong ones, and at once if nobody can be asked', async (context) => {
    const host = await startHost(context, folder, byPassword);
    const answers = new Answers('a', 'b', 'c', 'secret');
    await assert.rejects(connectSsh(optionsFor(host, { ask: answers.ask })), {
      code: 'AUTH_FAILED',
      message: /tried: a password/,
    });
    assert.equal(answers.asked.length, 3);
    await assert.rejects(connectSsh(optionsFor(host, {})), { code: 'AUTH_FAILED', hint: /no terminal/ });
  });

  test("a host's questions (keyboard-interactive) are asked, each on one line that names the host", async (context) => {
    const host = await startHost(context, folder, (request) => {
      if (request.method !== 'keyboard-interactive') return request.reject(['keyboard-interactive']);
      const prompts = [
        { prompt: 'Token: ', echo: true },
        { prompt: 'PIN: ', echo: false },
        { prompt: '\r\nPassphrase for the key /home/me/.ssh/id:\u2028\n', echo: false },
      ];
      request.prompt(prompts, 'two\n\tfactors', (given) => {
        if (given.join() === '123456,9,') request.accept();
        else request.reject(['keyboard-interactive']);
      });
    });
    const answers = new Answers('123456', '9', '');
    await login(context, host, { ask: answers.ask });
    assert.deepEqual(
      answers.asked.map(({ question, echo }) => [question.replace(/^\(\S+\) /, ''), echo]),
      [
        ['two ↵ factors: Token: ', true],
        ['PIN: ', false],
        ['↵ Passphrase for the key /home/me/.ssh/id: ↵ ', false],
      ],
    );
  });
});

describe(
  'a question on the terminal',
  { skip: spawnSync('script', ['--version']).status === 0 ? false : '`script` is missing' },
  () => {
    /** Asks on a terminal of its own, and types `typed` when the question has come; stdin and stdout are redirected. */
    async function askOnTerminal(typed: string, echo: boolean): Promise<{ shown: string; answer: string }> {
      const module = join(import.meta.dirname, '..', '..', 'src', 'transport', 'terminal.ts');
      const out = join(folder, `answer_${count++}`);
      const program =
        `const { terminalAsk } = await import('${module}');` +
        `terminalAsk()('Pass\\u001bword: ', ${echo}).then((a) => console.log(JSON.stringify(a)), (e) => console.log(e.code));`;
      const file = `${out}.mjs`;
      writeFileSync(file, program);
      const command = `'${process.execPath}' '${file}' < /dev/null > '${out}'`;
      const child = spawn('script', ['-qec', command, '/dev/null'], { stdio: ['pipe', 'pipe', 'inherit'] });
      let shown = '';
      child.stdout.setEncoding('utf8').on('data', (text: string) => {
        const before = shown;
        shown += text;
        if (!before.includes('word: ') && shown.includes('word: ')) child.stdin.write(typed);
      });
      await once(child, 'close');
      return { shown, answer: readFileSync(out, 'utf8').trim() };
    }

    test('a question is answered unseen though stdin and stdout are redirected, and the answer can be corrected', async () => {
      const { shown, answer } = await askOnTerminal('x\u0015sec\u007fcrét\r', false);
      assert.equal(answer, '"secrét"');
      assert.equal(shown.replaceAll('\r\n', ''), 'Pass\ufffdword: ');
    });

    test('a question shows the typed answer if it may be seen', async () => {
      const { shown, answer } = await askOnTerminal('123\r', true);
      assert.equal(answer, '"123"');
      assert.match(shown, /word: 123/);
    });

    test('a question ends as INTERRUPTED with Ctrl-C', async () => {
      assert.equal((await askOnTerminal('a\u0003', false)).answer, 'INTERRUPTED');
    });
  },
);

test('without a terminal nothing is asked', () => {
  const module = join(import.meta.dirname, '..', '..', 'src', 'transport', 'terminal.ts');
  const program = `import(${JSON.stringify(module)}).then((m) => console.log(String(m.terminalAsk())))`;
  const { stdout } = spawnSync('setsid', ['-w', process.execPath, '-e', program], { encoding: 'utf8' });
  assert.equal(stdout, 'undefined\n');
});
