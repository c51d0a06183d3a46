import { checkPath } from '../files/path-names.ts';

/**
 * An absolute path as the `file:` URI that SQLite opens. Escapes every byte that could have a meaning in a URI, so that
 * a file name can never carry options (`?mode=`, `#`, `%`). Throws USAGE for a path that would open another file than
 * it spells.
 */
export function databaseUri(
  absolutePath: string,
  options: { mode: 'ro' | 'rw' | 'rwc'; immutable?: boolean },
): string {
  checkPath(absolutePath);
  const escaped = absolutePath.split('/').map(encodeURIComponent).join('/');
  return `file://${escaped}?mode=${options.mode}${options.immutable === true ? '&immutable=1' : ''}`;
}
