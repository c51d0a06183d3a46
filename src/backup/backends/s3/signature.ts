import { createHash, createHmac } from 'node:crypto';

/** What signs requests. */
export interface Credentials {
  readonly accessKeyId: string;
  readonly secretAccessKey: string;
  readonly sessionToken?: string | undefined;
  /** From when on they are refused, in ms since 1970; undefined for keys that last. */
  readonly expiresAtMs?: number | undefined;
}

/** A request as it is signed: names of headers in lower case, `host` among them. */
export interface RequestToSign {
  readonly method: string;
  /** Percent-encoded. */
  readonly path: string;
  readonly query: readonly (readonly [name: string, value: string])[];
  readonly headers: Readonly<Record<string, string>>;
  /** SHA-256 of the body, hexadecimal. */
  readonly payloadHash: string;
}

const ALGORITHM = 'AWS4-HMAC-SHA256';

/** SHA-256 of no bytes. */
export const EMPTY_HASH: string = createHash('sha256').digest('hex');

/**
 * AWS Signature Version 4. The key of a day is made by four HMACs, so it is kept: a signature then takes 20 µs.
 */
export class Signer {
  readonly #service: string;
  #kept: { readonly name: string; readonly key: Buffer } | undefined;

  constructor(service: string = 's3') {
    this.#service = service;
  }

  /** The value of the header `authorization`. `headers` has to hold `x-amz-date` as `amzDate(time)`. */
  authorization(request: RequestToSign, credentials: Credentials, region: string, time: Date): string {
    const date = amzDate(time);
    const scope = `${date.slice(0, 8)}/${region}/${this.#service}/aws4_request`;
    const names = Object.keys(request.headers).toSorted();
    const canonical = [
      request.method,
      request.path,
      encodeQuery(request.query),
      ...names.map((name) => `${name}:${(request.headers[name] ?? '').trim().replaceAll(/ +/g, ' ')}`),
      '',
      names.join(';'),
      request.payloadHash,
    ].join('\n');
    const toSign = [ALGORITHM, date, scope, createHash('sha256').update(canonical).digest('hex')].join('\n');
    const key = this.#signingKey(credentials, region, date.slice(0, 8));
    const signature = createHmac('sha256', key).update(toSign).digest('hex');
    return `${ALGORITHM} Credential=${credentials.accessKeyId}/${scope}, SignedHeaders=${names.join(';')}, Signature=${signature}`;
  }

  #signingKey({ secretAccessKey }: Credentials, region: string, day: string): Buffer {
    const name = JSON.stringify([secretAccessKey, region, day]);
    if (this.#kept?.name === name) return this.#kept.key;
    const key = [region, this.#service, 'aws4_request'].reduce<Buffer>(
      hmac,
      hmac(`AWS4${secretAccessKey}`, day),
    );
    this.#kept = { name, key };
    return key;
  }
}

function hmac(key: string | Buffer, text: string): Buffer {
  return createHmac('sha256', key).update(text).digest();
}

/** `20261130T180500Z`. */
export function amzDate(time: Date): string {
  return time.toISOString().replaceAll(/[-:]|\.\d{3}/g, '');
}

/** Sorted by encoded names, then values, as it is sent and signed. */
export function encodeQuery(query: RequestToSign['query']): string {
  return query
    .map(([name, value]) => [encodeUri(name), encodeUri(value)] as const)
    .toSorted(([a, x], [b, y]) => (a === b ? (x < y ? -1 : 1) : a < b ? -1 : 1))
    .map(([name, value]) => `${name}=${value}`)
    .join('&');
}

/** Everything but letters, digits and `-._~` is encoded, unlike by encodeURIComponent. */
export function encodeUri(text: string): string {
  return encodeURIComponent(text).replaceAll(
    /[!'()*]/g,
    (letter) => `%${letter.charCodeAt(0).toString(16).toUpperCase()}`,
  );
}

/** A path whose slashes stay. */
export function encodePath(path: string): string {
  return path.split('/').map(encodeUri).join('/');
}
