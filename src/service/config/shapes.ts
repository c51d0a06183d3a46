import { isAlias, isMap, isScalar, isSeq } from 'yaml';
import type { Document, LineCounter, Node, YAMLMap } from 'yaml';
import { sanitizeLine, toSqlsyncError } from '../../errors.ts';

/** What is wrong at one place of the file. */
export interface Fault {
  /** From 1; 0 if the file has no such place. */
  readonly line: number;
  readonly column: number;
  /** `databases[0].schedule`; empty for the file itself. */
  readonly path: string;
  /** As written: a value from the environment may be a secret. */
  readonly found: string;
  readonly expected: string;
}

/** A kind of value in the file: how it is read, and what editors are told of it. */
export interface Shape<T> {
  readonly expected: string;
  /** As JSON Schema. */
  readonly schema: object;
  /** Undefined if the value is missing or wrong; it then has told the reading. */
  read(node: Node | undefined, path: string, reading: Reading): T | undefined;
}

type ValueOf<S> = S extends Shape<infer T> ? T : never;
export type Shapes = Readonly<Record<string, Shape<unknown>>>;
export type ValuesOf<F extends Shapes> = { readonly [Name in keyof F]: ValueOf<F[Name]> | undefined };

/** One pass through a document: collects what is wrong, and knows where each value stands. */
export class Reading {
  readonly faults: Fault[] = [];
  readonly #document: Document;
  readonly #lines: LineCounter;
  readonly #environment: NodeJS.ProcessEnv;
  readonly #places = new Map<unknown, { readonly node: YAMLMap; readonly path: string }>();

  constructor(document: Document, lines: LineCounter, environment: NodeJS.ProcessEnv) {
    this.#document = document;
    this.#lines = lines;
    this.#environment = environment;
  }

  fault(node: Node | undefined, path: string, found: string, expected: string): void {
    this.faultAt(node?.range?.[0], path, found, expected);
  }

  faultAt(offset: number | undefined, path: string, found: string, expected: string): void {
    const { line, col } = offset === undefined ? { line: 1, col: 1 } : this.#lines.linePos(offset);
    this.faults.push({ line, column: col, path, found, expected });
  }

  /** A fault of the field `name` of a group that was read; of the group itself if that lacks the field. */
  faultOf(values: object, name: string, found: string | undefined, expected: string): void {
    const place = this.#places.get(values);
    if (place === undefined) throw new Error('the group was not read here');
    const pair = place.node.items.find(({ key }) => isScalar(key) && key.value === name);
    const value = this.resolve(pair?.value as Node | undefined);
    const path = pair === undefined ? place.path : join(place.path, name);
    this.fault(value ?? place.node, path, found ?? describe(value), expected);
  }

  remember(values: object, node: YAMLMap, path: string): void {
    this.#places.set(values, { node, path });
  }

  /** The node that an alias stands for. */
  resolve(node: Node | null | undefined): Node | undefined {
    if (!isAlias(node)) return node ?? undefined;
    return node.resolve(this.#document);
  }

  /** Puts variables of the environment in their places; undefined if one is not set. `$${` is a plain `${`. */
  substitute(written: string, node: Node | undefined, path: string): string | undefined {
    let isWhole = true;
    const result = written.replaceAll(/\$(\$?)\{([^}]*)\}/g, (all, dollar: string, name: string) => {
      if (dollar !== '') return all.slice(1);
      const value = /^[A-Za-z_]\w*$/.test(name) ? this.#environment[name] : undefined;
      if (value !== undefined) return value;
      isWhole = false;
      const expected = /^[A-Za-z_]\w*$/.test(name)
        ? `a variable that is set in the environment of sqlsync`
        : 'the name of a variable, as in ${HOME}';
      this.fault(node, path, sanitizeLine(all, 80), expected);
      return '';
    });
    return isWhole ? result : undefined;
  }
}

function join(path: string, name: string): string {
  return path === '' ? name : `${path}.${name}`;
}

/** What stands there, for a message. */
export function describe(node: Node | undefined): string {
  if (isMap(node)) return 'a group of fields';
  if (isSeq(node)) return 'a list';
  if (!isScalar(node) || node.value === null) return 'nothing';
  const { value, source } = node;
  return sanitizeLine(
    typeof value === 'string' ? JSON.stringify(value) : (source ?? JSON.stringify(value)),
    80,
  );
}

/** A text, or a number that is written without quotes. `parse` returns undefined, or throws, for a wrong one. */
export function text<T>(
  expected: string,
  parse: (text: string) => T | undefined,
  schema: object = { type: 'string' },
  { hasVariables = true }: { readonly hasVariables?: boolean } = {},
): Shape<T> {
  return {
    expected,
    schema,
    read(node, path, reading) {
      const value = isScalar(node) ? node.value : undefined;
      if (typeof value !== 'string' && typeof value !== 'number' && typeof value !== 'bigint') {
        reading.fault(node, path, describe(node), expected);
        return undefined;
      }
      const written =
        typeof value === 'string' ? value : ((node as { source?: string }).source ?? String(value));
      const whole = hasVariables ? reading.substitute(written, node, path) : plain(written);
      if (whole === undefined && hasVariables) return undefined;
      const parsed = whole === undefined || whole.includes('\0') ? undefined : attempt(() => parse(whole));
      if (parsed === undefined) reading.fault(node, path, describe(node), expected);
      return parsed;
    },
  };
}

/** Undefined for a text that looks as if it had a variable. */
function plain(written: string): string | undefined {
  return written.includes('${') ? undefined : written;
}

/** Undefined for a text that a parser refuses: `expected` says more than its message about a command line. */
function attempt<T>(parse: () => T | undefined): T | undefined {
  try {
    return parse();
  } catch (error) {
    if (toSqlsyncError(error).code === 'INTERNAL') throw error;
    return undefined;
  }
}

/** True or false. */
export const YES_OR_NO: Shape<boolean> = {
  expected: 'true or false',
  schema: { type: 'boolean' },
  read(node, path, reading) {
    if (isScalar(node) && typeof node.value === 'boolean') return node.value;
    reading.fault(node, path, describe(node), 'true or false');
    return undefined;
  },
};

/** A list that is not empty; `single` also takes one value without a list. */
export function list<T>(
  expected: string,
  item: Shape<T>,
  { single = false }: { readonly single?: boolean } = {},
): Shape<readonly T[]> {
  const schema = { type: 'array', minItems: 1, items: item.schema };
  return {
    expected,
    schema: single ? { anyOf: [item.schema, schema] } : schema,
    read(node, path, reading) {
      if (single && isScalar(node)) {
        const value = item.read(node, path, reading);
        return value === undefined ? undefined : [value];
      }
      if (!isSeq(node) || node.items.length === 0) {
        reading.fault(node, path, isSeq(node) ? 'an empty list' : describe(node), expected);
        return undefined;
      }
      const values = node.items.map((each, at) =>
        item.read(reading.resolve(each as Node), `${path}[${at}]`, reading),
      );
      return values.every((value) => value !== undefined) ? values : undefined;
    },
  };
}

/** A group of fields. One that lacks a required field, or has an unknown or wrong one, is wrong as a whole. */
export function group<const F extends Shapes>(
  fields: F,
  describes: { readonly [Name in keyof F]: string },
  required: readonly (keyof F & string)[] = [],
): Shape<ValuesOf<F>> {
  const names = Object.keys(fields);
  const expected = `a group of ${names.length > 6 ? 'fields' : names.join(', ')}`;
  return {
    expected,
    schema: {
      type: 'object',
      additionalProperties: false,
      ...(required.length === 0 ? {} : { required }),
      properties: Object.fromEntries(
        names.map((name) => [name, { description: describes[name], ...fields[name]?.schema }]),
      ),
    },
    read(node, path, reading) {
      if (!isMap(node)) {
        reading.fault(node, path, describe(node), expected);
        return undefined;
      }
      const before = reading.faults.length;
      const values: Record<string, unknown> = {};
      for (const { key, value } of node.items) {
        const name = isScalar(key) ? String(key.value) : '';
        const shape = Object.hasOwn(fields, name) ? fields[name] : undefined;
        if (shape === undefined)
          reading.fault(
            key as Node,
            path,
            `the field ${sanitizeLine(JSON.stringify(name), 80)}`,
            expectedField(name, names),
          );
        else
          values[name] = shape.read(
            reading.resolve(value as Node | null) ?? (key as Node & { value: null }),
            join(path, name),
            reading,
          );
      }
      for (const name of required) {
        if (node.items.some(({ key }) => isScalar(key) && key.value === name)) continue;
        reading.fault(node, path, `no ${name}`, `${name}: ${fields[name]?.expected}`);
      }
      reading.remember(values, node, path);
      return reading.faults.length > before ? undefined : (values as ValuesOf<F>);
    },
  };
}

/** Words that people write for a secret in the file itself. */
const SECRET = /pass(?:word|phrase)|secret|token|key$/i;

function expectedField(name: string, names: readonly string[]): string {
  const choice = `one of ${names.join(', ')}`;
  return SECRET.test(name) && names.includes('password-file')
    ? `a secret in a file or from a command: password-file, password-command`
    : choice;
}
