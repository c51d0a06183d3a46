/** Options of an application's NODE_OPTIONS that its children must not share: its debugger, its watcher, its tests. */
const NOT_INHERITED = /^--(no-)?(inspect|debug|watch|test|experimental-test|cpu-prof|heap-prof)/;

/**
 * Node.js tells its own children with these what they are part of. With WATCH_REPORT_DEPENDENCIES a child reports each
 * module that it loads over its IPC channel, as if the application were the watcher.
 */
const NOT_INHERITED_VARIABLES = ['WATCH_REPORT_DEPENDENCIES', 'NODE_TEST_CONTEXT', 'NODE_V8_COVERAGE'];

/**
 * The environment of a child: the application's, without settings that would make the child wait for a debugger, take
 * its port, or report to its watcher. Pure.
 */
export function childEnvironment(env: NodeJS.ProcessEnv): NodeJS.ProcessEnv {
  const inherited = { ...env };
  for (const name of NOT_INHERITED_VARIABLES) delete inherited[name];
  const nodeOptions = inherited['NODE_OPTIONS'];
  if (nodeOptions !== undefined) inherited['NODE_OPTIONS'] = withoutDebugger(nodeOptions);
  return inherited;
}

/**
 * Spaces separate the words of NODE_OPTIONS. A word with spaces stands in double quotes, within which a backslash
 * escapes. A value may follow its option as a separate word (`--inspect-port 0`).
 */
function withoutDebugger(nodeOptions: string): string {
  const words = nodeOptions.match(/(?:"(?:\\.|[^"\\])*"?|[^\s"])+/gs) ?? [];
  const kept: string[] = [];
  let dropsValue = false;
  for (const word of words) {
    const isOption = word.replace(/^"/, '').startsWith('-');
    if (isOption) dropsValue = NOT_INHERITED.test(word.replace(/^"/, ''));
    if (!dropsValue) kept.push(word);
  }
  return kept.join(' ');
}
