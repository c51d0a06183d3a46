import { existsSync, lstatSync, readdirSync } from 'node:fs';
import { SqlsyncError, sanitizeText, systemErrorCode } from '../../errors.ts';
import { decodeName } from '../../files/path-names.ts';

/** A place that a pattern searches, or that it matches, and that cannot be inspected. */
export interface Unseen {
  readonly path: string;
  readonly error: SqlsyncError;
  /** True for a place that the pattern searches: it may hold any number of matches. */
  readonly isSearched: boolean;
}

export interface PatternMatches {
  /** In the order of their names. */
  readonly paths: readonly string[];
  readonly unseen: readonly Unseen[];
}

/** Characters that make a path a pattern. */
const MAGIC = /[*?[]/;

export function isPattern(path: string): boolean {
  return MAGIC.test(path);
}

/**
 * The names that match a pattern as in a shell: `*`, `?`, `[…]`, `{a,b}`, and `**` for folders at any depth; only a dot
 * matches a leading dot. Unlike `fs.globSync` it reports where it could not look: in a folder that cannot be read, and
 * at names that are not UTF-8.
 */
export function matchNames(pattern: string): PatternMatches {
  const walk = new PatternWalk();
  for (const each of expandBraces(pattern)) {
    const parts = each.split('/').filter((part) => part !== '' && part !== '.');
    walk.enter(each.startsWith('/') ? '/' : '', parts);
  }
  return { paths: [...walk.paths].sort(), unseen: [...walk.unseen.values()] };
}

class PatternWalk {
  readonly paths = new Set<string>();
  readonly unseen = new Map<string, Unseen>();

  /** `folder` is '' for the working directory, or ends with a slash. */
  enter(folder: string, parts: readonly string[]): void {
    const [part, ...rest] = parts;
    if (part === undefined) return;
    if (!isPattern(part)) return this.#take(folder, part.replaceAll(/\\(.)/g, '$1'), rest);
    if (part === '**') {
      this.enter(folder, rest);
      for (const { name, isFolder } of this.#names(folder, /^[^.]/))
        if (isFolder) this.enter(`${folder}${name}/`, parts);
      return;
    }
    for (const { name, isLink } of this.#names(folder, expressionOf(part))) {
      // As of a folder whose disk is not mounted: what would match behind it is left out.
      if (isLink && rest.length > 0 && !existsSync(`${folder}${name}`)) this.#missLink(`${folder}${name}`);
      else this.#take(folder, name, rest);
    }
  }

  #take(folder: string, name: string, rest: readonly string[]): void {
    const path = `${folder}${name}`;
    if (rest.length > 0) return this.enter(`${path}/`, rest);
    try {
      if (lstatSync(path, { throwIfNoEntry: false }) !== undefined) this.paths.add(path);
    } catch (error) {
      this.#miss(path, error, false);
    }
  }

  #names(folder: string, expression: RegExp): { name: string; isFolder: boolean; isLink: boolean }[] {
    let entries;
    try {
      entries = readdirSync(folder === '' ? '.' : folder, { encoding: 'buffer', withFileTypes: true });
    } catch (error) {
      this.#miss(folder === '' ? '.' : folder, error, true);
      return [];
    }
    return entries.flatMap((entry) => {
      const name = decodeName(entry.name);
      const shown = name ?? entry.name.toString();
      if (!expression.test(shown)) return [];
      if (name !== undefined)
        return [{ name, isFolder: entry.isDirectory(), isLink: entry.isSymbolicLink() }];
      const what = 'has a name that is not UTF-8';
      this.#add(`${folder}${shown}`, 'ORIGIN_UNREADABLE', what, 'Rename it.', false);
      return [];
    });
  }

  /** A missing path, or one that is not a folder, does not match. */
  #miss(path: string, error: unknown, isSearched: boolean): void {
    const code = systemErrorCode(error);
    if (code === 'ENOENT' || code === 'ENOTDIR') return;
    const hint = 'Run sqlsync as a user who may read it, or exclude it from the pattern.';
    if (code === 'EACCES' || code === 'EPERM')
      this.#add(path, 'ORIGIN_PERMISSION', `cannot be looked at (${code})`, hint, isSearched);
    else this.#add(path, 'ORIGIN_UNREADABLE', `cannot be looked at: ${String(error)}`, hint, isSearched);
  }

  #missLink(path: string): void {
    const hint =
      'Check that its target is mounted. Otherwise remove the link, or exclude it from the pattern.';
    this.#add(path, 'ORIGIN_NOT_FOUND', 'is a link that leads nowhere', hint, true);
  }

  #add(
    path: string,
    code: 'ORIGIN_NOT_FOUND' | 'ORIGIN_PERMISSION' | 'ORIGIN_UNREADABLE',
    what: string,
    hint: string,
    isSearched: boolean,
  ): void {
    const error = new SqlsyncError(code, `${sanitizeText(path)} ${what}`, { hint });
    this.unseen.set(path, { path, error, isSearched });
  }
}

/** The folder above all that a pattern can match: its parts before the first with a special character. */
export function fixedFolder(pattern: string): string {
  const parts = pattern.split('/').slice(0, -1);
  const special = parts.findIndex((part) => /[*?[{]/.test(part.replaceAll(/\\./gs, '')));
  const fixed = special === -1 ? parts : parts.slice(0, special);
  return fixed.join('/').replaceAll(/\\(.)/gs, '$1') || (pattern.startsWith('/') ? '/' : '.');
}

function expandBraces(pattern: string): string[] {
  const found = /^((?:[^\\{]|\\.)*)\{([^{}]*,[^{}]*)\}(.*)$/s.exec(pattern);
  if (found === null) return [pattern];
  const [, before = '', choices = '', after = ''] = found;
  return choices.split(',').flatMap((choice) => expandBraces(`${before}${choice}${after}`));
}

/** The expression for one part of a pattern. */
function expressionOf(part: string): RegExp {
  let source = part.startsWith('.') ? '' : '(?!\\.)';
  for (let at = 0; at < part.length; at++) {
    const character = part[at] as string;
    const list =
      character === '[' ? /^\[[!^]?\]?(?:\[:\w+:\]|[^\]])*\]/.exec(part.slice(at))?.[0] : undefined;
    if (list !== undefined) {
      source += listOf(list);
      at += list.length - 1;
    } else if (character === '*') source += '.*';
    else if (character === '?') source += '.';
    else if (character === '\\' && at + 1 < part.length) source += escape(part[++at] as string);
    else source += escape(character);
  }
  try {
    return new RegExp(`^${source}$`, 'su');
  } catch {
    throw new SqlsyncError(
      'USAGE',
      `${sanitizeText(part)} is not a valid pattern: a range in it is in the wrong order`,
      {
        hint: 'A range goes upwards, as in [a-z].',
      },
    );
  }
}

const CLASSES: Readonly<Record<string, string>> = {
  alpha: '\\p{L}',
  digit: '\\d',
  alnum: '\\p{L}\\d',
  upper: '\\p{Lu}',
  lower: '\\p{Ll}',
  space: '\\s',
  punct: '\\p{P}\\p{S}',
  xdigit: '\\dA-Fa-f',
};

function listOf(list: string): string {
  const isNegated = /^\[[!^]/.test(list);
  const inner = list
    .slice(isNegated ? 2 : 1, -1)
    .split(/(\[:\w+:\])/)
    .map((piece, index) =>
      index % 2 === 0 ? piece.replaceAll(/[\\\]^[]/g, '\\$&') : (CLASSES[piece.slice(2, -2)] ?? ''),
    );
  return `[${isNegated ? '^' : ''}${inner.join('')}]`;
}

function escape(character: string): string {
  return /[\\^$.*+?()[\]{}|/]/.test(character) ? `\\${character}` : character;
}
