import assert from 'node:assert/strict';
import { test } from 'node:test';
import { foreignSymbols } from '../../src/release/foreign-symbols.ts';

function tableOf(...names: string[]): Buffer {
  return Buffer.from(`\x7fELF\0${names.join('\0')}\0`, 'latin1');
}

test('a binding may need no newer glibc than the oldest that it is for', () => {
  assert.deepEqual(foreignSymbols(tableOf('GLIBC_2.2.5', 'GLIBC_2.14', 'GLIBC_2.28', 'open64'), '2.28'), []);
  const table = tableOf('GLIBC_2.2.5', 'GLIBC_2.33', 'GLIBC_2.28.1', 'GLIBC_3.0');
  assert.deepEqual(foreignSymbols(table, '2.28'), ['GLIBC_2.33', 'GLIBC_2.28.1', 'GLIBC_3.0']);
});

test('a binding may have no errno of its own, only the function that finds that of the C library', () => {
  assert.deepEqual(foreignSymbols(tableOf('__errno_location'), '2.28'), []);
  assert.deepEqual(foreignSymbols(tableOf('__errno_location', 'errno'), '2.28'), ['errno']);
});
