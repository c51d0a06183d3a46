import { SqlsyncError, sanitizeText } from '../../errors.ts';

/** Which names of a folder count, as rsync has them. */
export interface FilterOptions {
  readonly include?: readonly string[] | undefined;
  readonly exclude?: readonly string[] | undefined;
}

interface Rule {
  readonly isIncluded: boolean;
  readonly isFolderOnly: boolean;
  readonly expression: RegExp;
}

/** The most patterns, and the longest, that an agent takes from its peer. */
const MAX_PATTERNS = 1000;
const MAX_PATTERN_LENGTH = 1000;

/**
 * The patterns of rsync: the first that matches decides, and what none matches is included. All that include come before
 * all that exclude. One with a slash at its end matches folders only; one with a slash at its start begins in the folder
 * that is copied; any other may begin in each folder below. `*` and `?` match no slash, `**` does.
 */
export class FilterRules {
  readonly #rules: readonly Rule[];

  /** Throws SqlsyncError USAGE for a pattern that is empty, too long or wrong. */
  constructor({ include = [], exclude = [] }: FilterOptions) {
    if (include.length + exclude.length > MAX_PATTERNS)
      throw wrong(`more than ${MAX_PATTERNS} patterns`, 'Use fewer.');
    this.#rules = [
      ...include.map((pattern) => ruleOf(pattern, true)),
      ...exclude.map((pattern) => ruleOf(pattern, false)),
    ];
  }

  /** `path` is relative to the folder that is copied. A folder that is excluded is not looked into. */
  includes(path: string, isFolder: boolean): boolean {
    const rule = this.#rules.find((each) => (isFolder || !each.isFolderOnly) && each.expression.test(path));
    return rule?.isIncluded ?? true;
  }
}

function ruleOf(pattern: string, isIncluded: boolean): Rule {
  const isFolderOnly = pattern.endsWith('/');
  const body = isFolderOnly ? pattern.replace(/\/+$/, '') : pattern;
  if (body === '' || body.length > MAX_PATTERN_LENGTH)
    throw wrong(`the pattern "${sanitizeText(pattern, 50)}"`, 'Write a name such as "*.db" or "/cache/".');
  const isAnchored = body.startsWith('/');
  const source = sourceOf(isAnchored ? body.slice(1) : body);
  try {
    return {
      isIncluded,
      isFolderOnly,
      expression: new RegExp(`${isAnchored ? '^' : '(?:^|/)'}${source}$`, 'su'),
    };
  } catch {
    throw wrong(`the pattern "${sanitizeText(pattern, 50)}"`, 'A range goes upwards, as in [a-z].');
  }
}

/** One token after another. Runs of stars become one: each more would multiply the time that a match can take. */
function sourceOf(pattern: string): string {
  const tokens = pattern.match(/\\.|\[[!^]?\]?[^\]]*\]|\*+|[^]/gu) ?? [];
  return tokens
    .map((token) => {
      if (token.startsWith('**')) return '.*';
      if (token === '*') return '[^/]*';
      if (token === '?') return '[^/]';
      if (token.startsWith('[') && token.length > 2)
        return `(?!/)[${token
          .slice(1, -1)
          .replace(/^!/, '^')
          .replaceAll(/[\\[\]]|(?!^)\^/g, String.raw`\$&`)}]`;
      return (token.startsWith('\\') && token.length > 1 ? token.slice(1) : token).replaceAll(
        /[\\^$.*+?()[\]{}|/-]/g,
        (character) => (character === '-' ? String.raw`\x2d` : `\\${character}`),
      );
    })
    .join('');
}

function wrong(what: string, hint: string): SqlsyncError {
  return new SqlsyncError('USAGE', `--include and --exclude: ${what} cannot be used`, { hint });
}
