import { randomBytes } from 'node:crypto';
import { crc32 } from 'node:zlib';
import { FrameDecoder } from '../../../protocol/decode.ts';
import { DEFAULT_HASH } from '../../../protocol/messages.ts';
import type { MessageOf } from '../../../protocol/messages.ts';
import { PREAMBLE, PROTOCOL_VERSION } from '../../../protocol/version.ts';
import { sanitizeText, toSqlsyncError } from '../../errors.ts';
import { HASH_KEY_BYTES } from '../../pages/hash.ts';
import type { Transport } from '../../transport/transport.ts';
import { Connection } from '../link/connection.ts';
import { orInterrupted } from './conversation.ts';
import { openToRead } from './open-to-read.ts';
import { RemoteShell, UnlikeShellError } from '../link/remote-shell.ts';
import type { LinkFigures } from '../link/remote-shell.ts';
import { checkFolder, checkRead, checkWrite, mendMissing, NODE_MEND, survey } from './setup-survey.ts';
import type { AgentAnswer, SetupCheck, SetupOptions, SetupReport } from './setup-report.ts';
import type { Survey } from './setup-survey.ts';
import { connectRemote, DEFAULT_REMOTE_EXE, greetingTimeoutMs, startAgent } from '../link/start-agent.ts';

/**
 * Checks whether the host of `location` can be the other side of a sync, and changes nothing there. The report says
 * what is missing. Throws SqlsyncError if the host cannot be reached or refuses the login.
 */
export async function runSetup(options: SetupOptions): Promise<SetupReport> {
  return orInterrupted(options.signal, () => inspectHost(options));
}

async function inspectHost(options: SetupOptions): Promise<SetupReport> {
  const { location } = options;
  const shell = await askShell(options);
  const agent = await askAgent(options);
  const checks: SetupCheck[] = [{ name: 'login', state: 'ok', detail: loginDetail(shell) }];
  checks.push(...agentChecks(options, agent, shell.found));
  if (location.path !== '') {
    checks.push(checkRead(options, shell.found, agent), checkWrite(options, shell.found));
  } else if (shell.found !== undefined) checks.push(checkFolder(shell.found));
  return { ok: checks.every(({ state }) => state !== 'missing'), checks, link: shell.link };
}

interface ShellAnswer {
  readonly found: Survey | undefined;
  readonly link: LinkFigures | undefined;
  /** What a login there prints before a command runs; it would break the protocol. */
  readonly banner: string;
  /** True if an agent answered instead of a shell. */
  readonly isForced: boolean;
}

async function askShell(options: SetupOptions): Promise<ShellAnswer> {
  const transport = await connectRemote(options.location, ['sh'], {
    remote: options,
    signal: options.signal,
    onWarning: options.onWarning,
  });
  const shell = new RemoteShell(transport, options.idleTimeoutMs);
  try {
    const banner = (await shell.ask(':')).trim();
    const found = await survey(shell, options.location.path, options.remoteExe ?? DEFAULT_REMOTE_EXE);
    const link = options.measuresLink === false ? undefined : await shell.measure();
    return { found, link, banner, isForced: false };
  } catch (error) {
    // A host without `sh`, or one that runs another command for this key, may still work as the other side.
    if (error instanceof UnlikeShellError) {
      return { found: undefined, link: undefined, banner: '', isForced: error.said.startsWith(PREAMBLE) };
    }
    const failure = toSqlsyncError(error);
    if (failure.code !== 'REMOTE_EXE_NOT_FOUND') throw failure;
    return { found: undefined, link: undefined, banner: '', isForced: false };
  } finally {
    shell.close();
  }
}

/** Lets the agent open the database, as a sync would. */
async function askAgent(options: SetupOptions): Promise<AgentAnswer> {
  let transport: Transport | undefined;
  let hello: MessageOf<'hello'> | undefined;
  try {
    transport = await startAgent(options.location, { remote: options, signal: options.signal });
    const decoder = new FrameDecoder(crc32);
    transport.input.on('data', (bytes: Uint8Array) => {
      if (hello !== undefined) return;
      try {
        decoder.push(bytes);
        const first = decoder.next();
        if (first?.type === 'hello') hello = first;
      } catch {
        // The connection fails in the same way, and reports it.
      }
    });
    const connection = new Connection(transport, 'opening', {
      ...options,
      greetingTimeoutMs: greetingTimeoutMs(options.location, options, options.idleTimeoutMs),
    });
    connection.send(openFor(options));
    const snapshot = await connection.receiveOnly('snapshot');
    return { hello, snapshot, failure: undefined };
  } catch (error) {
    return { hello, snapshot: undefined, failure: toSqlsyncError(error) };
  } finally {
    transport?.terminate();
  }
}

function openFor({ location, idleTimeoutMs }: SetupOptions): MessageOf<'open'> {
  const key = randomBytes(HASH_KEY_BYTES);
  return openToRead({ path: location.path, key, hash: DEFAULT_HASH, busyTimeoutMs: 1000, idleTimeoutMs });
}

function loginDetail({ found, isForced, banner }: ShellAnswer): string {
  if (isForced) return 'this key may only start the agent (a forced command), so setup can check less';
  if (found === undefined) return 'no shell answers, so setup can check less';
  const noise = banner === '' ? '' : `; the login prints ${JSON.stringify(sanitizeText(banner, 100))}`;
  return `as ${found.user} on ${found.system}${noise}`;
}

function agentChecks(
  options: SetupOptions,
  { hello, failure }: AgentAnswer,
  found: Survey | undefined,
): SetupCheck[] {
  if (hello === undefined) {
    const code = failure?.code ?? 'CONNECTION_LOST';
    const detail = failure?.message ?? 'it sent nothing';
    if (code === 'NODE_UNSUPPORTED')
      return [{ name: 'sqlsync', state: 'missing', detail, code, mend: NODE_MEND }];
    const isAbsent = code === 'REMOTE_EXE_NOT_FOUND';
    const mend = isAbsent ? mendMissing(options, found) : failure?.hint;
    return [{ name: 'sqlsync', state: 'missing', detail, code, mend }];
  }
  const isDefault = (options.remoteExe ?? DEFAULT_REMOTE_EXE) === DEFAULT_REMOTE_EXE;
  const place = found?.exe || (isDefault && found?.elsewhere) || '';
  const where = place === '' ? '' : ` at ${place}`;
  const checks: SetupCheck[] = [
    { name: 'sqlsync', state: 'ok', detail: `${sanitizeText(hello.program, 100)}${where}` },
  ];
  if (failure?.code === 'PROTOCOL_VERSION') {
    const { message: detail, code, hint: mend } = failure;
    checks.push({ name: 'protocol', state: 'missing', detail, code, mend });
  } else
    checks.push({
      name: 'protocol',
      state: 'ok',
      detail: `version ${Math.min(PROTOCOL_VERSION, hello.maxVersion)}`,
    });
  return checks;
}
