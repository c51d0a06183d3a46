import assert from 'node:assert/strict';
import { test } from 'node:test';
import { childEnvironment } from '../../src/library/environment.ts';

const CASES: [nodeOptions: string, forTheChild: string][] = [
  ['--max-old-space-size=100', '--max-old-space-size=100'],
  ['--inspect-brk=0 --require ./pnp.cjs', '--require ./pnp.cjs'],
  ['--require ./pnp.cjs --inspect', '--require ./pnp.cjs'],
  ['--inspect-port 9229 --use-openssl-ca', '--use-openssl-ca'],
  ['--inspect-wait --watch --watch-path=src --test-only', ''],
  [String.raw`--require "/a folder/\"x\".js" --inspect`, String.raw`--require "/a folder/\"x\".js"`],
  ['"--inspect-brk" --import="/a b/--inspect.js"', '--import="/a b/--inspect.js"'],
  ['', ''],
];

for (const [nodeOptions, expected] of CASES) {
  test(`NODE_OPTIONS '${nodeOptions}' become '${expected}' for a child`, () => {
    assert.equal(childEnvironment({ NODE_OPTIONS: nodeOptions })['NODE_OPTIONS'], expected);
  });
}

test('a child inherits everything but the variables of the watcher and the test runner', () => {
  const env = { HOME: '/h', WATCH_REPORT_DEPENDENCIES: '1', NODE_TEST_CONTEXT: 'child-v8' };
  assert.deepEqual(childEnvironment(env), { HOME: '/h' });
  assert.equal(env.NODE_TEST_CONTEXT, 'child-v8', 'the application keeps its own');
});
