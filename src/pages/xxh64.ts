import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';

/** What this module uses of WebAssembly; the types of Node.js do not declare it. */
interface WebAssemblyApi {
  readonly Module: new (bytes: Uint8Array) => object;
  readonly Instance: new (module: object) => { readonly exports: Exports };
}

/** The functions of xxhash.wasm take bytes at an address of its memory. */
interface Exports {
  readonly mem: { readonly buffer: ArrayBuffer; grow(wasmPages: number): number };
  /** The hash is a signed 64-bit number. */
  readonly xxh64: (address: number, length: number, seed: bigint) => bigint;
}

const WASM_PAGE_BYTES = 65_536;

let loaded: Exports | undefined;

/**
 * XXH64 by the WebAssembly of the package xxhash-wasm. That package itself only loads it asynchronously, which would
 * take a top-level await, and then `require()` could not load the library.
 */
export function xxh64(bytes: Uint8Array, seed: bigint): bigint {
  loaded ??= load();
  const { mem } = loaded;
  const missing = bytes.length - mem.buffer.byteLength;
  if (missing > 0) mem.grow(Math.ceil(missing / WASM_PAGE_BYTES));
  new Uint8Array(mem.buffer).set(bytes);
  return BigInt.asUintN(64, loaded.xxh64(0, bytes.length, seed));
}

function load(): Exports {
  const { WebAssembly } = globalThis as unknown as { readonly WebAssembly: WebAssemblyApi };
  const entry = createRequire(import.meta.url).resolve('xxhash-wasm');
  const code = readFileSync(join(dirname(dirname(entry)), 'workerd', 'xxhash.wasm'));
  return new WebAssembly.Instance(new WebAssembly.Module(code)).exports;
}
