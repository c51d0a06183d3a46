import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';

export interface Instruction {
  readonly name: string;
  /** Its options, `--mount=…`. */
  readonly options: readonly string[];
  readonly text: string;
}

/** The instructions of the Dockerfile. A backslash at the end of a line joins it with the next one. */
export function readDockerfile(): Instruction[] {
  const text = readFileSync(join(dirname(dirname(import.meta.dirname)), 'Dockerfile'), 'utf8');
  const lines = text.replaceAll(/^#.*\n/gm, '').replaceAll(/\\\n\s*/g, '');
  return lines
    .split('\n')
    .filter(Boolean)
    .map((line) => {
      const [, name = '', options = '', rest = ''] = /^([A-Z]+) ((?:--\S+ )*)(.*)$/.exec(line) ?? [];
      return { name, options: options.split(' ').filter(Boolean), text: rest.trim() };
    });
}

/** The text of the one instruction of this name. */
export function textOf(name: string): string {
  const found = readDockerfile().filter((instruction) => instruction.name === name);
  if (found.length !== 1) throw new Error(`the Dockerfile has ${found.length} times ${name}`);
  return found[0]?.text ?? '';
}
