/** What SQLite says of what an application registers with it, and what that is called. */
const KINDS: readonly (readonly [RegExp, string])[] = [
  [/no such collation sequence: (.+)/, 'the collation'],
  [/(?:no such|unknown) function: (.+?)(?:\(\))?$/m, 'the function'],
  [/no such module: (.+)/, 'the module'],
  [/(?:no such|unknown) tokenizer:? (.+)/, 'the tokenizer'],
];

/**
 * What this SQLite lacks, as in "the collation unicode", where `message` of SQLite says that something is not there
 * which an application or an extension brings along. It may be sound all the same. undefined for any other message.
 */
export function missingFeature(message: string): string | undefined {
  for (const [pattern, kind] of KINDS) {
    const name = pattern.exec(message)?.[1];
    if (name !== undefined) return `${kind} ${name.trim()}`;
  }
  return undefined;
}
