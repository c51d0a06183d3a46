import { statSync } from 'node:fs';
import { SqlsyncError } from '../../errors.ts';

/**
 * An option by its name without dashes, for yargs, help, completion and the manual. It is a switch unless it takes a
 * value.
 */
export interface Option {
  /** Its letter. */
  readonly alias?: string;
  /** The name of its value in help. */
  readonly value?: string;
  /** All values that it accepts. */
  readonly choices?: readonly string[];
  /** True if it may be given several times. */
  readonly array?: boolean;
  readonly default?: string;
  readonly describe: string;
  /** What the manual says beyond `describe`, in whole sentences. */
  readonly more?: string;
}

/** True if the option takes no value. */
export function isSwitch({ value, choices }: Option): boolean {
  return value === undefined && choices === undefined;
}

export type Options = Readonly<Record<string, Option>>;

/** A command as the generic parts of the program see it. */
export interface Command {
  readonly name: string;
  /** Its operands: `<store> [ids..]`. */
  readonly usage: string;
  readonly describe: string;
  /** An example command line. */
  readonly example: string;
  /** What the manual says of the fields of its summary, the last line of --json. */
  readonly summary?: string;
  /** The help text of each operand. */
  readonly operands: Readonly<Record<string, string>>;
  readonly options: Options;
  /** The heading in help; a command without one is not for people. */
  readonly group?: string;
  /** Returns the exit status. */
  run(args: never): Promise<number>;
}

/** The name of an option, or of a field, in camel case. */
export function camelCase(name: string): string {
  return name.replaceAll(/-([a-z])/g, (_, letter: string) => letter.toUpperCase());
}

type CamelCase<Name extends string> = Name extends `${infer Head}-${infer Tail}`
  ? `${Head}${Capitalize<CamelCase<Tail>>}`
  : Name;

type ValueOf<O> = O extends { readonly array: true }
  ? readonly string[] | undefined
  : O extends { readonly choices: readonly (infer Choice)[]; readonly default: string }
    ? Choice
    : O extends { readonly value: string; readonly default: string }
      ? string
      : O extends { readonly value: string }
        ? string | undefined
        : boolean;

/** The types of the values of a table of options. */
export type OptionValues<O> = { readonly [Name in keyof O & string as CamelCase<Name>]: ValueOf<O[Name]> };

type OperandOf<Word extends string> = Word extends `<${infer Name}..>` | `[${infer Name}..]`
  ? { readonly [N in Name]: readonly string[] }
  : Word extends `<${infer Name}>`
    ? { readonly [N in Name]: string }
    : Word extends `[${infer Name}]`
      ? { readonly [N in Name]: string | undefined }
      : unknown;

type OperandValues<Usage extends string> = Usage extends `${infer Word} ${infer Rest}`
  ? OperandOf<Word> & OperandValues<Rest>
  : OperandOf<Usage>;

/** The arguments of a command: its operands and options, by their names in camel case. */
export type ArgumentsOf<Usage extends string, O> = OperandValues<Usage> & OptionValues<O>;

interface CommandSpecification<Usage extends string, O extends Options> {
  readonly name: string;
  readonly usage: Usage;
  readonly describe: string;
  readonly example: string;
  readonly summary?: string;
  readonly operands: Readonly<Record<keyof OperandValues<Usage> & string, string>>;
  readonly options: O;
  readonly group?: string;
  run(args: ArgumentsOf<Usage, O>): Promise<number>;
}

/** A command whose arguments have the types that its usage and its options declare. */
export function defineCommand<const Usage extends string, const O extends Options>(
  specification: CommandSpecification<Usage, O>,
): Command {
  return specification;
}

/** The failure. If the working folder has a database with the name of the command, the hint names it. */
export function hintAtDatabase(command: string, failure: SqlsyncError): SqlsyncError {
  if (statSync(command, { throwIfNoEntry: false })?.isFile() !== true) return failure;
  const { code, message, hint = '', outcome } = failure;
  const more = `${hint} The database named ${command} is ./${command}.`.trim();
  return new SqlsyncError(code, message, { hint: more, outcome, cause: failure });
}
