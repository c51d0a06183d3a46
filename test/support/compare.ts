import './environment.ts';
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { closeSync, mkdtempSync, openSync, readSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

/**
 * The bytes of page 1 that belong to the replica (offset, length): journal mode, change counter, schema cookie, and
 * the counter and SQLite version of the last commit.
 */
export const MASKED_HEADER_BYTES: readonly (readonly [offset: number, length: number])[] = [
  [18, 2],
  [24, 4],
  [40, 4],
  [92, 4],
  [96, 4],
];

const CHILD = fileURLToPath(new URL('./page-image-child.ts', import.meta.url));
const MAX_OUTPUT_BYTES = 2 ** 31 - 1;

/**
 * Assert that `replica` is an exact copy of `origin`, as both stand now (neither may be written meanwhile): the same
 * pages but for {@link MASKED_HEADER_BYTES}, a sound database, and the same content to another build of SQLite.
 *
 * Both are read without changing a byte of the database or its WAL; a database in WAL mode may be left with an empty
 * `-wal` and a `-shm`. All reading happens in child processes: the POSIX locks of a connection that this process
 * holds with another copy of SQLite would vanish with the first close of ours.
 */
export function assertReplicaOf(origin: string, replica: string): void {
  assertSamePages(origin, replica);
  const ofReplica = independentReading(replica);
  assert.equal(ofReplica.integrity, 'ok', `${replica}: PRAGMA integrity_check`);
  assert.equal(
    ofReplica.dumpSha256,
    independentReading(origin).dumpSha256,
    `${replica}: the rows differ from ${origin}`,
  );
}

/** As `assertReplicaOf`, for databases that may be damaged. */
export function assertSamePages(origin: string, replica: string): void {
  const [expected, actual] = pageImages([origin, replica]) as [Buffer, Buffer];
  const difference = describeDifference(expected, actual);
  if (difference !== undefined) {
    assert.fail(`${replica} is not a replica of ${origin}: ${difference}`);
  }
}

/** All pages of the database as a reader sees them, WAL included; empty for a database of zero pages. */
export function pageImage(path: string): Buffer {
  return pageImages([path])[0] as Buffer;
}

/** The image cut into pages, a copy, with the bytes that belong to the replica set to zero. */
export function maskedPages(image: Buffer): Buffer[] {
  const masked = Buffer.from(image);
  if (masked.length === 0) return [];
  for (const [offset, length] of MASKED_HEADER_BYTES) masked.fill(0, offset, offset + length);
  const pageSize = pageSizeOf(masked);
  return Array.from({ length: masked.length / pageSize }, (_, index) =>
    masked.subarray(index * pageSize, (index + 1) * pageSize),
  );
}

/** A new directory, removed with all it holds when the test ends. */
export function tempDir(t: { after(end: () => unknown): void }): string {
  const path = mkdtempSync(join(tmpdir(), 'sqlsync-test-'));
  // A process that a test leaves may still make a file there.
  t.after(() => rmSync(path, { recursive: true, force: true, maxRetries: 10, retryDelay: 50 }));
  return path;
}

/**
 * SHA-256 (hex) of the file as it lies on disk. Not for a database that this process has open: closing the
 * descriptor drops the locks of its connections.
 */
export function sha256File(path: string): string {
  const hash = createHash('sha256');
  const chunk = Buffer.allocUnsafe(1 << 20);
  const file = openSync(path, 'r');
  try {
    for (let length; (length = readSync(file, chunk)) > 0;) hash.update(chunk.subarray(0, length));
  } finally {
    closeSync(file);
  }
  return hash.digest('hex');
}

function pageImages(paths: readonly string[]): Buffer[] {
  const output = run(process.execPath, [CHILD, ...paths]);
  const images: Buffer[] = [];
  for (let offset = 0; offset < output.length;) {
    const length = Number(output.readBigUInt64BE(offset));
    images.push(output.subarray(offset + 8, offset + 8 + length));
    offset += 8 + length;
  }
  assert.equal(images.length, paths.length);
  return images;
}

function pageSizeOf(image: Buffer): number {
  const stored = image.readUInt16BE(16);
  return stored === 1 ? 65536 : stored;
}

/** Undefined if the images are equal under the mask. */
function describeDifference(expected: Buffer, actual: Buffer): string | undefined {
  const expectedPages = maskedPages(expected);
  const actualPages = maskedPages(actual);
  if (expectedPages.length > 0 && actualPages.length > 0 && pageSizeOf(expected) !== pageSizeOf(actual)) {
    return `page size ${pageSizeOf(actual)} against ${pageSizeOf(expected)}`;
  }
  const differing: number[] = [];
  for (let index = 0; index < Math.min(expectedPages.length, actualPages.length); index++) {
    if (!(expectedPages[index] as Buffer).equals(actualPages[index] as Buffer)) differing.push(index + 1);
  }
  const problems: string[] = [];
  if (expectedPages.length !== actualPages.length) {
    problems.push(`${actualPages.length} pages against ${expectedPages.length}`);
  }
  const [first] = differing;
  if (first !== undefined) {
    const named = differing.slice(0, 10).join(', ') + (differing.length > 10 ? ', …' : '');
    const offset = firstDifference(expectedPages[first - 1] as Buffer, actualPages[first - 1] as Buffer);
    problems.push(`${differing.length} pages differ (${named}), page ${first} from its byte ${offset}`);
  }
  return problems.length === 0 ? undefined : problems.join('; ');
}

function firstDifference(a: Buffer, b: Buffer): number {
  return a.findIndex((byte, offset) => byte !== b[offset]);
}

interface Reading {
  integrity: string;
  dumpSha256: string;
}

/** The content by a build of SQLite that is not ours: the command-line shell, or Python's if there is no shell. */
function independentReading(path: string): Reading {
  const output = hasShell()
    ? run('sqlite3', ['-readonly', '-batch', '-init', '/dev/null', path, 'PRAGMA integrity_check', '.dump'])
    : run('python3', ['-c', PYTHON_READING, path]);
  const endOfIntegrity = output.indexOf('PRAGMA foreign_keys=OFF;\n');
  assert.notEqual(endOfIntegrity, -1, `${path}: no dump, but ${output.toString().slice(0, 500)}`);
  return {
    integrity: output.subarray(0, endOfIntegrity).toString().trim(),
    dumpSha256: createHash('sha256').update(output.subarray(endOfIntegrity)).digest('hex'),
  };
}

const PYTHON_READING = `
import sqlite3, sys, pathlib
db = sqlite3.connect(pathlib.Path(sys.argv[1]).absolute().as_uri() + '?mode=ro', uri=True)
db.text_factory = lambda text: text.decode('utf-8', 'surrogateescape')
sys.stdout.reconfigure(encoding='utf-8', errors='surrogateescape')
for row in db.execute('PRAGMA integrity_check'):
    print(row[0])
print('PRAGMA foreign_keys=OFF;')
for line in db.iterdump():
    print(line)
`;

let shellFound: boolean | undefined;

function hasShell(): boolean {
  shellFound ??= spawnSync('sqlite3', ['-version']).status === 0;
  return shellFound;
}

function run(command: string, args: readonly string[]): Buffer {
  const { status, signal, stdout, stderr, error } = spawnSync(command, args, { maxBuffer: MAX_OUTPUT_BYTES });
  if (error !== undefined) throw error;
  if (status !== 0) {
    throw new Error(`${command} ${args.join(' ')}: ${signal ?? `exit ${status}`}\n${stderr.toString()}`);
  }
  return stdout;
}
