import type { FilterOptions } from './filter-rules.ts';

/** A folder, and which of the databases in it a pattern means. */
export interface FolderPattern {
  readonly folder: string;
  readonly rules: Required<FilterOptions>;
}

const WILDCARD = /[*?[]/;

/**
 * Divides a path such as `/srv/app-*.db` before its first name with a wildcard. A folder that the whole pattern matches
 * is meant with all that is in it. Undefined for a path without a wildcard.
 */
export function folderPattern(path: string): FolderPattern | undefined {
  const names = path.split('/');
  const first = names.findIndex((name) => WILDCARD.test(name));
  if (first === -1) return undefined;
  const folder = names.slice(0, first).join('/') || (path.startsWith('/') ? '/' : '.');
  const pattern = names.slice(first).filter((name) => name !== '');
  const whole = `/${pattern.join('/')}`;
  // `**` may stand for any number of folders, so each may lead to a database.
  const leading = pattern.some((name) => name.includes('**'))
    ? ['*/']
    : pattern.slice(1).map((_, i) => `/${pattern.slice(0, i + 1).join('/')}/`);
  return { folder, rules: { include: [...leading, whole, `${whole}/**`], exclude: ['*'] } };
}
