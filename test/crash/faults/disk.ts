import { mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import type { Random } from '../../../fixtures/random.ts';

/**
 * The calls of a process on the files of one folder and of its subfolders, as strace prints them with -xx.
 * Names are relative to the folder, which is '' itself.
 */
export type DiskEvent =
  | { readonly type: 'create' | 'makeFolder'; readonly name: string }
  | { readonly type: 'write'; readonly name: string; readonly offset: number | 'end'; readonly data: Buffer }
  | { readonly type: 'size'; readonly name: string; readonly bytes: number }
  | { readonly type: 'sync'; readonly name: string }
  | { readonly type: 'rename' | 'link'; readonly name: string; readonly to: string }
  | { readonly type: 'unlink'; readonly name: string }
  /** The last message on stdout, which confirms the success. */
  | { readonly type: 'confirmed' };

/** The unit in which a write may reach the disk in part. */
const SECTOR_BYTES = 512;

/** The code of `done` in a frame. */
const DONE_CODE = 14;

export function diskEvents(
  folder: string,
  log: string,
  isConfirmation: (written: Buffer) => boolean = (written) => written[4] === DONE_CODE,
): DiskEvent[] {
  const nameOf = (path: Buffer): string | undefined => nameIn(folder, path.toString());
  const events: DiskEvent[] = [];
  for (const [, name = '', text = ''] of log.matchAll(/^\d+ +(\w+)\((.*)$/gm)) {
    const strings = [...text.matchAll(/"((?:\\x[0-9a-f]{2})*)"/g)].map(([, hex = '']) => unhex(hex));
    const opened = nameOf(unhex(/^\d+<((?:\\x[0-9a-f]{2})*)>/.exec(text)?.[1] ?? ''));
    const numbers =
      text
        .replace(/"[^"]*"|<[^>]*>/g, '')
        .match(/-?\d+/g)
        ?.map(Number) ?? [];
    const [first = Buffer.alloc(0), second = Buffer.alloc(0)] = strings;
    const named = nameOf(first);
    if (name === 'write' && text.startsWith('1<')) {
      if (isConfirmation(first)) events.push({ type: 'confirmed' });
    } else if (['pwrite64', 'write', 'ftruncate', 'fsync', 'fdatasync'].includes(name)) {
      if (opened !== undefined) events.push(contentEvent(name, opened, first, numbers));
    } else if (named !== undefined && !/ = -1 /.test(text)) {
      const event = nameEvent(name, named, nameOf(second) ?? '', text);
      if (event !== undefined) events.push(event);
    }
  }
  return events.filter((event) => !('name' in event) || !event.name.endsWith('-shm'));
}

function contentEvent(call: string, name: string, data: Buffer, numbers: readonly number[]): DiskEvent {
  if (call === 'pwrite64') return { type: 'write', name, data, offset: numbers[2] as number };
  if (call === 'write') return { type: 'write', name, data, offset: 'end' };
  if (call === 'ftruncate') return { type: 'size', name, bytes: numbers[1] as number };
  return { type: 'sync', name };
}

function nameEvent(call: string, name: string, to: string, text: string): DiskEvent | undefined {
  if (call === 'openat') return text.includes('O_CREAT') ? { type: 'create', name } : undefined;
  if (call === 'rename' || call === 'link') return { type: call, name, to };
  if (call === 'mkdir') return { type: 'makeFolder', name };
  return call === 'unlink' ? { type: 'unlink', name } : undefined;
}

function nameIn(folder: string, path: string): string | undefined {
  if (path === folder) return '';
  return path.startsWith(`${folder}/`) ? path.slice(folder.length + 1) : undefined;
}

function unhex(escaped: string): Buffer {
  return Buffer.from(escaped.replaceAll(String.raw`\x`, ''), 'hex');
}

type Change =
  { readonly offset: number; readonly data: Buffer } | { readonly bytes: number; readonly data?: undefined };

interface File {
  durable: Buffer;
  /** The changes since the last fsync; a power cut may lose any part of them. */
  pending: Change[];
  bytes: number;
}

const FOLDER = Symbol('folder');
type Entry = File | typeof FOLDER;

/** Names of one folder and their new inodes; undefined removes the name. */
type Naming = readonly (readonly [name: string, entry: Entry | undefined])[];

/** The pending changes that reached the disk before the power was cut. */
export const SURVIVORS = ['nothing', 'everything', 'only content', 'only names', 'a random part'] as const;
export type Survivors = (typeof SURVIVORS)[number];

/**
 * A disk that keeps only durable changes for sure: the content of a file after an fsync of the file, names
 * after an fsync of the folder. Anything else may be there or not, in any combination, and a write also in
 * part.
 */
export class Disk {
  readonly #names = new Map<string, Entry>();
  #durableNames: Map<string, Entry>;
  #pendingNames: Naming[] = [];

  /** The state of `folder` as it is now, all durable; without -shm files, which do not outlive a power cut. */
  constructor(folder: string) {
    for (const name of readdirSync(folder, { recursive: true, encoding: 'utf8' })) {
      if (name.endsWith('-shm')) continue;
      const path = join(folder, name);
      if (statSync(path).isDirectory()) {
        this.#names.set(name, FOLDER);
        continue;
      }
      const durable = readFileSync(path);
      this.#names.set(name, { durable, pending: [], bytes: durable.length });
    }
    this.#durableNames = new Map(this.#names);
  }

  apply(event: DiskEvent): void {
    switch (event.type) {
      case 'create':
        if (!this.#names.has(event.name)) {
          this.#name([[event.name, { durable: Buffer.alloc(0), pending: [], bytes: 0 }]]);
        }
        return;
      case 'makeFolder':
        return this.#name([[event.name, FOLDER]]);
      case 'write':
      case 'size':
        return this.#change(this.#file(event.name), event);
      case 'sync': {
        if (event.name === '' || this.#names.get(event.name) === FOLDER) return this.#syncFolder(event.name);
        const file = this.#file(event.name);
        file.durable = contentOf(file, file.pending);
        file.pending = [];
        return;
      }
      case 'rename':
        if (folderOf(event.name) !== folderOf(event.to)) throw new Error(`a rename to ${event.to}`);
        return this.#name([
          [event.name, undefined],
          [event.to, this.#file(event.name)],
        ]);
      case 'link':
        return this.#name([[event.to, this.#file(event.name)]]);
      case 'unlink':
        return this.#name([[event.name, undefined]]);
      case 'confirmed':
        return;
    }
  }

  /** Writes the state after a power cut into the empty folder `into`. */
  cut(into: string, survivors: Survivors, random: Random): void {
    const keepsNames = survivors === 'everything' || survivors === 'only names';
    const keepsContent = survivors === 'everything' || survivors === 'only content';
    const isRandom = survivors === 'a random part';
    const names = new Map(this.#durableNames);
    for (const naming of this.#pendingNames) {
      if (keepsNames || (isRandom && random.chance(0.5))) setNames(names, naming);
    }
    // Shorter names first: a folder comes before its content, which is lost with the folder's name.
    for (const [name, file] of [...names].sort(([a], [b]) => a.length - b.length)) {
      if (folderOf(name) !== '' && !names.has(folderOf(name))) {
        names.delete(name);
        continue;
      }
      if (file === FOLDER) {
        mkdirSync(join(into, name));
        continue;
      }
      const kept = isRandom ? somePart(file.pending, random) : keepsContent ? file.pending : [];
      writeFileSync(join(into, name), contentOf(file, kept));
    }
  }

  #change(file: File, event: DiskEvent & { type: 'write' | 'size' }): void {
    if (event.type === 'size') {
      file.pending.push({ bytes: event.bytes });
      file.bytes = event.bytes;
      return;
    }
    const offset = event.offset === 'end' ? file.bytes : event.offset;
    file.pending.push({ offset, data: event.data });
    file.bytes = Math.max(file.bytes, offset + event.data.length);
  }

  /** The names in the folder, without the content of its subfolders. */
  #syncFolder(folder: string): void {
    const isIn = ([name]: readonly [string, unknown]): boolean => folderOf(name) === folder;
    const elsewhere = [...this.#durableNames].filter((entry) => !isIn(entry));
    this.#durableNames = new Map([...elsewhere, ...[...this.#names].filter(isIn)]);
    this.#pendingNames = this.#pendingNames.filter((naming) => !naming.some(isIn));
  }

  #name(naming: Naming): void {
    setNames(this.#names, naming);
    this.#pendingNames.push(naming);
  }

  #file(name: string): File {
    const file = this.#names.get(name);
    if (file === undefined || file === FOLDER) throw new Error(`strace did not tell where ${name} came from`);
    return file;
  }
}

/** '' for the names in the folder of the disk itself. */
function folderOf(name: string): string {
  const folder = dirname(name);
  return folder === '.' ? '' : folder;
}

function setNames(names: Map<string, Entry>, naming: Naming): void {
  for (const [name, entry] of naming) {
    if (entry === undefined) names.delete(name);
    else names.set(name, entry);
  }
}

function contentOf(file: File, changes: readonly Change[]): Buffer {
  let content = Buffer.from(file.durable);
  for (const change of changes) {
    const end = change.data === undefined ? change.bytes : change.offset + change.data.length;
    if (end > content.length) content = Buffer.concat([content, Buffer.alloc(end - content.length)]);
    if (change.data === undefined) content = content.subarray(0, change.bytes);
    else change.data.copy(content, change.offset);
  }
  return content;
}

function somePart(changes: readonly Change[], random: Random): Change[] {
  const share = random.pick([0.1, 0.5, 0.9]);
  const kept: Change[] = [];
  for (const change of changes) {
    if (!random.chance(share)) continue;
    if (change.data === undefined || random.chance(0.8)) kept.push(change);
    else kept.push(...someSectors(change.offset, change.data, random));
  }
  return kept;
}

function someSectors(offset: number, data: Buffer, random: Random): Change[] {
  const kept: Change[] = [];
  for (let from = 0; from < data.length;) {
    const end = Math.min(data.length, from + SECTOR_BYTES - ((offset + from) % SECTOR_BYTES));
    if (random.chance(0.5)) kept.push({ offset: offset + from, data: data.subarray(from, end) });
    from = end;
  }
  return kept;
}
