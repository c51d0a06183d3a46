import { sanitizeLine } from '../../../errors.ts';
import type { StoredFile } from '../backend.ts';
import type { HttpResponse } from './http.ts';

/** What the service says of a request that it refused. */
export interface Refusal {
  readonly status: number;
  /** Such as NoSuchKey; empty if the answer is none of S3. */
  readonly code: string;
  readonly message: string;
  /** The region of the bucket, if the request went to another. */
  readonly region: string | undefined;
}

/** True for the words of AWS, Ceph and MinIO for a quota that is used up. */
export function isQuota(code: string): boolean {
  return /Quota(?:Limit)?Exceeded$/.test(code);
}

export function refusalOf({ status, headers, body }: HttpResponse): Refusal {
  const text = body.toString('utf8');
  const region = headers['x-amz-bucket-region'] ?? textOf(text, 'Region');
  return {
    status,
    code: sanitizeLine(textOf(text, 'Code') ?? '', 80),
    message: sanitizeLine(textOf(text, 'Message') ?? '', 300),
    region: typeof region === 'string' && /^[a-zA-Z0-9-]{1,64}$/.test(region) ? region : undefined,
  };
}

/** A page of a list. */
export interface ListPage {
  readonly files: readonly StoredFile[];
  /** For the request of the next page; undefined for the last. */
  readonly next: string | undefined;
}

/** undefined for an answer that is not the whole of a list. */
export function listPageOf({ body }: HttpResponse, prefix: string): ListPage | undefined {
  const text = body.toString('utf8');
  const isTruncated = textOf(text, 'IsTruncated');
  if (isTruncated === undefined || !/<\/ListBucketResult>\s*$/.test(text)) return undefined;
  const next = isTruncated === 'true' ? textOf(text, 'NextContinuationToken') : undefined;
  if (isTruncated === 'true' && next === undefined) return undefined;
  const keys = new Keys(text, prefix);
  const files: StoredFile[] = [];
  for (const [, entry = ''] of text.matchAll(/<Contents>(.*?)<\/Contents>/gs)) {
    const key = keys.of(textOf(entry, 'Key'));
    const bytes = Number(textOf(entry, 'Size') ?? Number.NaN);
    const modified = new Date(textOf(entry, 'LastModified') ?? '');
    if (key?.startsWith(prefix) !== true || !Number.isSafeInteger(bytes)) return undefined;
    const name = key.slice(prefix.length);
    // A folder's own marker, which other programs make, or a key below it, is none of the store's.
    if (name !== '' && !name.includes('/')) files.push({ name, bytes, modified });
  }
  return { files, next };
}

/** One version of a file, or its deletion. */
export interface FileVersion {
  /** Without the prefix of the store. */
  readonly name: string;
  /** `null` for a file that was put while the bucket kept no versions. */
  readonly versionId: string;
  readonly isDeletion: boolean;
  readonly bytes: number;
  readonly modified: Date;
}

export interface VersionsPage {
  readonly versions: readonly FileVersion[];
  /** What the request of the next page asks for; undefined for the last. */
  readonly next: readonly (readonly [string, string])[] | undefined;
}

/** undefined for an answer that is not whole; 'no versions' for a service that lists files instead. */
export function versionsPageOf(
  { body }: HttpResponse,
  prefix: string,
): VersionsPage | 'no versions' | undefined {
  const text = body.toString('utf8');
  if (text.includes('<ListBucketResult')) return 'no versions';
  const isTruncated = textOf(text, 'IsTruncated');
  if (isTruncated === undefined || !/<\/ListVersionsResult>\s*$/.test(text)) return undefined;
  const keys = new Keys(text, prefix);
  const versions: FileVersion[] = [];
  let last: string | undefined;
  for (const [, kind, entry = ''] of text.matchAll(/<(Version|DeleteMarker)>(.*?)<\/\1>/gs)) {
    const key = keys.of(textOf(entry, 'Key'));
    last = key;
    const versionId = textOf(entry, 'VersionId');
    const isDeletion = kind === 'DeleteMarker';
    const bytes = isDeletion ? 0 : Number(textOf(entry, 'Size') ?? Number.NaN);
    const modified = new Date(textOf(entry, 'LastModified') ?? '');
    if (key?.startsWith(prefix) !== true || versionId === undefined || !Number.isSafeInteger(bytes))
      return undefined;
    if (Number.isNaN(modified.getTime())) return undefined;
    versions.push({ name: key.slice(prefix.length), versionId, isDeletion, bytes, modified });
  }
  if (isTruncated !== 'true') return { versions, next: undefined };
  const named = textOf(text, 'NextKeyMarker');
  // Ceph encodes the keys but not the marker, which is the last of them.
  const marker = named === last ? named : keys.of(named);
  if (marker === undefined) return undefined;
  const versionMarker = textOf(text, 'NextVersionIdMarker');
  const next: (readonly [string, string])[] = [['key-marker', marker]];
  if (versionMarker !== undefined) next.push(['version-id-marker', versionMarker]);
  return { versions, next };
}

/**
 * Reads the keys of a list. The request asks for percent-encoded ones, since XML has no way to write some characters. Some
 * services send them as they are, and some encode them without a word.
 */
class Keys {
  readonly #isEncoded: boolean;
  readonly #prefix: string;

  constructor(xml: string, prefix: string) {
    this.#isEncoded = textOf(xml, 'EncodingType')?.toLowerCase() === 'url';
    this.#prefix = prefix;
  }

  /** A key as it is stored; undefined if there is none. */
  of(text: string | undefined): string | undefined {
    if (text === undefined) return undefined;
    if (!this.#isEncoded && text.startsWith(this.#prefix)) return text;
    try {
      return decodeURIComponent(text.replaceAll('+', ' '));
    } catch {
      return text;
    }
  }
}

const ENTITIES: Readonly<Record<string, string>> = { amp: '&', lt: '<', gt: '>', quot: '"', apos: "'" };

/** The text of the first element of this name. */
function textOf(xml: string, name: string): string | undefined {
  const [, text] = new RegExp(`<${name}>([^<]*)</${name}>`).exec(xml) ?? [];
  return text?.replaceAll(
    /&(?:(amp|lt|gt|quot|apos)|#(\d{1,7})|#x([0-9a-fA-F]{1,6}));/g,
    (whole, named, decimal, hex) => {
      if (named !== undefined) return ENTITIES[named as string] ?? whole;
      const point = decimal === undefined ? parseInt(hex as string, 16) : Number(decimal);
      return point <= 0x10ffff ? String.fromCodePoint(point) : whole;
    },
  );
}
