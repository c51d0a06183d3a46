import { closeSync, openSync, writeSync } from 'node:fs';
import { ReadStream } from 'node:tty';
import { SqlsyncError, sanitizeText } from '../errors.ts';

/** Asks the user; `echo` shows the typed text. Rejects with INTERRUPTED on Ctrl-C or Ctrl-D. */
export type Ask = (question: string, echo: boolean) => Promise<string>;

const CTRL_C = '\u0003';
const CTRL_D = '\u0004';
const CTRL_U = '\u0015';
const BACKSPACES = new Set(['\u0008', '\u007f']);

/** A longer secret is a file pasted by mistake. */
const MAX_ANSWER_LENGTH = 4096;

/** Two connections may ask at the same time; the user gets one question after the other. */
let lastQuestion: Promise<unknown> = Promise.resolve();

/**
 * How to ask on the terminal that controls this process, even if stdin and stdout are redirected; undefined if there is
 * none, as under cron.
 */
export function terminalAsk(): Ask | undefined {
  try {
    closeSync(openSync('/dev/tty', 'r+'));
  } catch {
    return undefined;
  }
  return (question, echo) => {
    const answer = lastQuestion.then(() => askOn('/dev/tty', question, echo));
    lastQuestion = answer.catch(() => {});
    return answer;
  };
}

/**
 * The user's answers in one run, so that a new login of the same run need not ask again. They stay in memory. If a
 * login asks the same a second time, the answer was wrong, so the user is asked.
 */
export class AnswerMemory {
  readonly #ask: Ask;
  readonly #answers = new Map<string, string>();

  constructor(ask: Ask) {
    this.#ask = ask;
  }

  forNextLogin(): Ask {
    const told = new Set<string>();
    return async (question, echo) => {
      const known = this.#answers.get(question);
      if (known !== undefined && !told.has(question)) {
        told.add(question);
        return known;
      }
      const answer = await this.#ask(question, echo);
      told.add(question);
      this.#answers.set(question, answer);
      return answer;
    };
  }
}

/** The terminal is raw while it asks: it echoes nothing, and Ctrl-C is a character. */
async function askOn(device: string, question: string, echo: boolean): Promise<string> {
  const fd = openSync(device, 'r+');
  const input = new ReadStream(fd);
  const show = (text: string): void => void writeSync(fd, text);
  try {
    input.setRawMode(true);
    show(sanitizeText(question, 500));
    return await readAnswer(input, echo ? show : () => {});
  } finally {
    input.setRawMode(false);
    show('\n');
    input.destroy();
  }
}

function readAnswer(input: ReadStream, echo: (text: string) => void): Promise<string> {
  const { promise, resolve, reject } = Promise.withResolvers<string>();
  let answer = '';
  const giveUp = (): void =>
    reject(new SqlsyncError('INTERRUPTED', 'the question was not answered', { hint: 'Run sqlsync again.' }));
  const take = (character: string): void => {
    if (character === '\r' || character === '\n') resolve(answer);
    else if (character === CTRL_C || character === CTRL_D || answer.length > MAX_ANSWER_LENGTH) giveUp();
    else if (character === CTRL_U) answer = '';
    else if (BACKSPACES.has(character)) answer = answer.slice(0, -1);
    else if (character >= ' ') {
      answer += character;
      echo(sanitizeText(character));
    }
  };
  input.setEncoding('utf8');
  input.on('data', (text: string) => {
    for (const character of text) take(character);
  });
  input.on('error', giveUp);
  input.on('end', giveUp);
  return promise;
}
