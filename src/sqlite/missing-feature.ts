/** SQLite's messages about features that an application registers, and the name of each kind. */
const KINDS: readonly (readonly [RegExp, string])[] = [
  [/no such collation sequence: (.+)/, 'the collation'],
  [/(?:no such|unknown) function: (.+?)(?:\(\))?$/m, 'the function'],
  [/no such module: (.+)/, 'the module'],
  [/(?:no such|unknown) tokenizer:? (.+)/, 'the tokenizer'],
];

/**
 * The feature that this SQLite lacks, as in "the collation unicode", if `message` of SQLite says that something is
 * missing that an application or an extension provides. The database may be sound all the same. undefined for any other
 * message.
 */
export function missingFeature(message: string): string | undefined {
  for (const [pattern, kind] of KINDS) {
    const name = pattern.exec(message)?.[1];
    if (name !== undefined) return `${kind} ${name.trim()}`;
  }
  return undefined;
}
