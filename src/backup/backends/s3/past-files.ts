import { sanitizeText, SqlsyncError } from '../../../errors.ts';
import type { StoredFile } from '../backend.ts';
import type { S3Client } from './client.ts';
import { versionsPageOf } from './responses.ts';
import type { FileVersion } from './responses.ts';

const MAX_LIST_BYTES: number = 16 * 1024 * 1024;

/** The files of a store as they were at a time, by the versions that their bucket keeps. */
export class PastFiles {
  readonly #client: S3Client;
  readonly #prefix: string;
  readonly #atMs: number;
  #versions: Promise<ReadonlyMap<string, FileVersion>> | undefined;

  /** @param prefix - what the names of all objects of the store begin with. */
  constructor(client: S3Client, prefix: string, at: Date) {
    this.#client = client;
    this.#prefix = prefix;
    this.#atMs = at.getTime();
  }

  /** The version of a file; undefined if there was none. Throws as `list`. */
  async versionOf(name: string): Promise<string | undefined> {
    return (await this.#then()).get(name)?.versionId;
  }

  /** Throws S3Refused, an error of the system, and SqlsyncError USAGE if the bucket keeps no versions. */
  async list(folder: string): Promise<StoredFile[]> {
    const files: StoredFile[] = [];
    for (const [key, { bytes, modified }] of await this.#then()) {
      const name = key.slice(folder.length + 1);
      if (key.startsWith(`${folder}/`) && !name.includes('/')) files.push({ name, bytes, modified });
    }
    return files;
  }

  #then(): Promise<ReadonlyMap<string, FileVersion>> {
    return (this.#versions ??= this.#load());
  }

  async #load(): Promise<ReadonlyMap<string, FileVersion>> {
    const latest = new Map<string, FileVersion>();
    let areKept = false;
    const changedSince = new Set<string>();
    for (let next: readonly (readonly [string, string])[] | undefined = []; next !== undefined;) {
      const query = [['versions', ''], ['encoding-type', 'url'], ['prefix', this.#prefix], ...next] as const;
      const response = await this.#client.send({
        method: 'GET',
        query,
        maxBytes: MAX_LIST_BYTES,
        isWhole: (answer) => versionsPageOf(answer, this.#prefix) !== undefined,
      });
      const page = versionsPageOf(response, this.#prefix);
      if (page === undefined || page === 'no versions') throw noVersions();
      for (const version of page.versions) {
        areKept ||= version.versionId !== 'null' || version.isDeletion;
        const isOfThen = version.modified.getTime() <= this.#atMs;
        if (!isOfThen) changedSince.add(version.name);
        else if (isLater(version, latest.get(version.name))) latest.set(version.name, version);
      }
      if (page.next !== undefined && String(page.next) === String(next))
        throw new Error('the service gives the same page of a list again and again');
      next = page.next;
    }
    // A store that was put before the bucket kept versions is there, as long as nothing of it was put again since.
    if (changedSince.size > 0 && !areKept) throw noVersions([...changedSince]);
    for (const [name, { isDeletion }] of latest) if (isDeletion) latest.delete(name);
    return latest;
  }
}

/** Of a deletion and a version in the same second, the version counts: a file too much does no harm. */
function isLater(version: FileVersion, than: FileVersion | undefined): boolean {
  if (than === undefined) return true;
  const aheadMs = version.modified.getTime() - than.modified.getTime();
  return aheadMs > 0 || (aheadMs === 0 && than.isDeletion && !version.isDeletion);
}

/** @param changed - names of files that were put since the time that is asked for. */
function noVersions(changed: readonly string[] = []): SqlsyncError {
  const [first] = changed;
  const others = changed.length > 1 ? ` and ${changed.length - 1} others` : '';
  const since = first === undefined ? '' : `; ${sanitizeText(first, 100)}${others} was put since then`;
  return new SqlsyncError(
    'USAGE',
    `The bucket keeps no old versions of its files: only the present can be read${since}`,
    {
      hint: 'Leave --at away. docs/stores.md says how a bucket keeps versions from now on.',
    },
  );
}
