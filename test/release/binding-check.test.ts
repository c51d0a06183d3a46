import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { findFaults } from '../../src/release/binding-check.ts';
import { readElf } from '../../src/release/elf-file.ts';
import { readMachO } from '../../src/release/mach-o-file.ts';

/** The bindings that better-sqlite3's own package carries: real files of each kind, made in another way than ours. */
const FOLDER = join(
  dirname(createRequire(import.meta.url).resolve('better-sqlite3/package.json')),
  'prebuilds',
);

function carried(name: string): Buffer {
  return readFileSync(join(FOLDER, `${name}.node`));
}

test('libraries, versions and variables of threads are read from a binding for glibc', () => {
  const { libraries, symbols } = readElf(carried('linux-x64'));
  assert.deepEqual(libraries, ['libstdc++.so.6', 'libm.so.6', 'libc.so.6', 'ld-linux-x86-64.so.2']);
  const symbol = (name: string): unknown => symbols.find((each) => each.name === name);
  const needed = { isDefined: false, isWeak: false, isThreadLocal: false, from: undefined };
  assert.deepEqual(symbol('pthread_mutexattr_init'), {
    name: 'pthread_mutexattr_init',
    ...needed,
    from: 'GLIBC_2.34',
  });
  assert.deepEqual(symbol('napi_set_element'), { name: 'napi_set_element', ...needed });
  assert.deepEqual(symbol('napi_register_module_v1'), {
    name: 'napi_register_module_v1',
    ...needed,
    isDefined: true,
  });
});

test('libraries, the oldest system and the signature are read from a binding for macOS', () => {
  const { libraries, symbols, minimum, isSigned } = readMachO(carried('darwin-arm64'));
  assert.deepEqual(libraries, ['/usr/lib/libc++.1.dylib', '/usr/lib/libSystem.B.dylib']);
  assert.deepEqual([minimum, isSigned], ['11.0', true]);
  assert.equal(readMachO(carried('darwin-x64')).isSigned, false);
  const fromWhere = (name: string): unknown => symbols.find((each) => each.name === name && !each.isDefined);
  assert.deepEqual(fromWhere('napi_set_element'), {
    name: 'napi_set_element',
    isDefined: false,
    isWeak: false,
    isThreadLocal: false,
    from: undefined,
  });
  assert.match(JSON.stringify(fromWhere('memcpy')), /"from":"\/usr\/lib\/libSystem\.B\.dylib"/);
});

test('a binding of another platform, format or purpose is not taken for one of ours', () => {
  assert.deepEqual(findFaults(Buffer.from('no binding'), 'linux-x64'), ['another format of file']);
  assert.deepEqual(findFaults(carried('darwin-x64'), 'linux-x64'), ['another format of file']);
  assert.deepEqual(findFaults(carried('linux-x64'), 'darwin-x64'), ['another format of file']);
  for (const [name, platform] of [
    ['linux-arm64', 'linux-x64'],
    ['linuxmusl-x64', 'linux-arm64-musl'],
    ['darwin-arm64', 'darwin-x64'],
  ] as const) {
    assert.ok(findFaults(carried(name), platform).includes('another processor'), name);
  }
  const library = readFileSync(join(dirname(FOLDER), 'prebuilds', 'win32-x64.node'));
  assert.deepEqual(findFaults(library, 'linux-x64'), ['another format of file']);
});

// Each would be met only on the machine of somebody else.
test('what a binding needs beyond the oldest system is named', () => {
  const forGlibc = findFaults(carried('linux-arm64'), 'linux-arm64');
  for (const fault of ['libstdc++.so.6', 'dlopen of GLIBC_2.34', 'log of GLIBC_2.29', '_Znwm of GLIBCXX_3.4'])
    assert.ok(forGlibc.includes(fault), forGlibc.join('\n'));
  assert.ok(!forGlibc.some((fault) => fault.includes('GLIBC_2.17')), forGlibc.join('\n'));
  assert.deepEqual(findFaults(carried('linuxmusl-x64'), 'linux-x64-musl').slice(0, 2), [
    'libstdc++.so.6',
    'libc.musl-x86_64.so.1',
  ]);
  const forMac = findFaults(carried('darwin-x64'), 'darwin-x64');
  for (const fault of ['/usr/lib/libc++.1.dylib', 'macOS 10.7', 'sqlite3_open for all to see'])
    assert.ok(forMac.includes(fault), forMac.join('\n'));
});

test('a variable for each thread is named: an errno of its own is not the one that the C library sets', () => {
  const faults = findFaults(carried('linux-x64'), 'linux-x64');
  assert.ok(faults.includes('_ZSt11__once_call, a variable for each thread'), faults.join('\n'));
});

test('a symbol is named that neither Node.js nor a library has, and one of Node.js is not', () => {
  const file = carried('linux-x64');
  const at = file.indexOf('\0napi_set_element\0');
  file.write('sapi_set_element', at + 1, 'latin1');
  const faults = findFaults(file, 'linux-x64').filter((fault) => fault.endsWith('which nobody has'));
  assert.deepEqual(faults, ['sapi_set_element, which nobody has']);
  file.write('sapi_register_module_v1', file.indexOf('\0napi_register_module_v1\0') + 1, 'latin1');
  assert.ok(findFaults(file, 'linux-x64').includes('no napi_register_module_v1'));
});
