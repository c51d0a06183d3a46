import { isIP } from 'node:net';
import { sanitizeText, SqlsyncError } from '../../../errors.ts';

/** Where a store lies in an S3 service. */
export interface S3Address {
  /** As the user wrote it, for messages. It holds no secret. */
  readonly text: string;
  readonly bucket: string;
  /** What the names of all objects begin with: empty, or ends with a slash. */
  readonly prefix: string;
  /** The service; undefined for AWS, whose hosts follow from the region. */
  readonly endpoint: Endpoint | undefined;
  readonly region: string | undefined;
  /** Whether the bucket stands in the path or in the host's name; undefined for the service's default. */
  readonly style: 'path' | 'virtual' | undefined;
  /** Read the store as it was then, from the versions that the bucket keeps. */
  readonly at: Date | undefined;
}

export interface Endpoint {
  readonly isTls: boolean;
  /** A name or an address, an IPv6 address without brackets. */
  readonly hostname: string;
  readonly port: number | undefined;
}

const BEGINNING = 's3:';

const FORM = 'Write s3:https://HOST[:PORT]/BUCKET/PREFIX, or s3:BUCKET/PREFIX for AWS.';

/** True for the address of a store in S3. A folder of such a name is `./s3:…`. */
export function isS3Address(text: string): boolean {
  return text.startsWith(BEGINNING);
}

/**
 * Reads `s3:https://HOST[:PORT]/BUCKET/PREFIX` and `s3:BUCKET/PREFIX`, each with `?region=…&style=path|virtual` at the
 * end if these cannot be found out, and `?at=TIME` to read what was there then. AWS_ENDPOINT_URL_S3 and AWS_ENDPOINT_URL name the service of the short form, as for
 * other programs. Throws SqlsyncError USAGE.
 */
export function parseS3Address(text: string, env: NodeJS.ProcessEnv = process.env): S3Address {
  const [, location = '', query] = /^s3:(?:\/\/)?([^?#]*)(?:\?(.*))?$/s.exec(text) ?? [];
  // oxlint-disable-next-line no-control-regex -- control characters are exactly what is refused
  if (location === '' || /[\s\u0000-\u001f\u007f]/.test(text))
    throw usage(text, 'is no address of a store', FORM);
  const options = optionsIn(query, text);
  const url = /^(https?):\/\/([^/]*)\/?(.*)$/i.exec(location);
  const named = url?.[3] ?? location;
  const given = url === null ? endpointOf(env) : endpointIn(`${url[1]}://${url[2]}`, text);
  const { endpoint, region } = simplified(given, named, text);
  const [bucket = '', ...folders] = named.replace(/\/+$/, '').split('/');
  if (!/^[a-zA-Z0-9][a-zA-Z0-9._-]{1,254}$/.test(bucket)) throw usage(text, 'names no bucket', FORM);
  if (/^s3[.-].*amazonaws\.com/.test(bucket))
    throw usage(text, 'names a host where its bucket should be', `Write s3:https://${named}`);
  if (folders.some((folder) => folder === '' || folder === '.' || folder === '..'))
    throw usage(
      text,
      'has an empty part, or . or .., in its prefix',
      'Write the prefix as a path without them.',
    );
  if (endpoint?.isTls === false && !isLoopback(endpoint.hostname) && options.http !== 'plain')
    throw usage(
      text,
      'has no encryption: everyone on the way could read and change the store',
      'Use https:. If you mean it, as on a network of your own, add ?http=plain.',
    );
  const prefix = folders.length === 0 ? '' : `${folders.join('/')}/`;
  const at = options.at === undefined ? undefined : new Date(options.at);
  return { text, bucket, prefix, endpoint, region: options.region ?? region, style: options.style, at };
}

/**
 * One spelling of the place at an address: with the service that the environment names, and without what does not change
 * which files lie there.
 */
export function placeOfS3({ bucket, prefix, endpoint }: S3Address): string {
  const objects = `${bucket}/${prefix}`.replace(/\/$/, '');
  const name = (endpoint?.hostname ?? '').toLowerCase().replace(/\.$/, '');
  // The name of a bucket is unique in AWS, whatever its region.
  if (endpoint === undefined || isAws(endpoint)) return `s3:${objects}`;
  const host = name.includes(':') ? `[${name}]` : name;
  const [scheme, usual] = endpoint.isTls ? ['https', 443] : ['http', 80];
  const port = endpoint.port === undefined || endpoint.port === usual ? '' : `:${endpoint.port}`;
  return `s3:${scheme}://${host}${port}/${objects}`;
}

/** True for AWS, by its short form or by the name of one of its hosts. */
export function isAws(endpoint: Endpoint | undefined): boolean {
  return endpoint === undefined || AWS_HOST.test(endpoint.hostname.toLowerCase());
}

/** Hosts of AWS, each with its region if the name has one; those of FIPS and dualstack are names of their own. */
const AWS_HOST =
  /^s3(?:-fips)?(?:\.dualstack)?(?:[.-](?<region>[a-z]{2}(?:-[a-z]+)+-\d+))?\.amazonaws\.com(?:\.cn)?$/;

/** Hosts that have the bucket in their name. */
const BUCKET_HOST =
  /^(?<bucket>.+)\.s3(?:-fips)?(?:\.dualstack)?(?:[.-][a-z0-9-]+)?\.amazonaws\.com(?:\.cn)?$/;

/**
 * AWS's usual hosts follow from the region, so a name of one says no more than the region in it. Throws SqlsyncError USAGE
 * for a host with a bucket in its name.
 */
function simplified(
  endpoint: Endpoint | undefined,
  named: string,
  text: string,
): { readonly endpoint: Endpoint | undefined; readonly region: string | undefined } {
  const host = endpoint?.hostname.toLowerCase() ?? '';
  const bucket = BUCKET_HOST.exec(host)?.groups?.['bucket'];
  if (bucket !== undefined)
    throw usage(text, 'has the bucket in the name of its host', `Write s3:${bucket}/${named}`);
  const isUsual = endpoint?.isTls === true && endpoint.port === undefined && !/fips|dualstack/.test(host);
  const found = isUsual ? AWS_HOST.exec(host) : null;
  // China has no host without a region.
  if (found === null || (host.endsWith('.cn') && found.groups?.['region'] === undefined))
    return { endpoint, region: undefined };
  return { endpoint: undefined, region: found.groups?.['region'] };
}

interface AddressOptions {
  region?: string;
  style?: 'path' | 'virtual';
  http?: 'plain';
  at?: string;
}

const OPTION_VALUES: Readonly<Record<string, RegExp>> = {
  region: /^[a-zA-Z0-9-]{1,64}$/,
  style: /^(?:path|virtual)$/,
  http: /^plain$/,
  at: /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,3})?Z$/,
};

function optionsIn(query: string | undefined, text: string): AddressOptions {
  const given: Record<string, string> = {};
  for (const [name, value] of new URLSearchParams(query ?? '')) {
    const isTime = name !== 'at' || !Number.isNaN(Date.parse(value));
    if (OPTION_VALUES[name]?.test(value) !== true || !isTime || given[name] !== undefined)
      throw usage(
        text,
        `has the option ${sanitizeText(name, 40)}=${sanitizeText(value, 40)}`,
        'The options are ?region=NAME, ?style=path, ?style=virtual, ?http=plain and ?at=2026-11-21T08:00:00Z.',
      );
    given[name] = value;
  }
  return given;
}

function endpointOf(env: NodeJS.ProcessEnv): Endpoint | undefined {
  const name = ['AWS_ENDPOINT_URL_S3', 'AWS_ENDPOINT_URL'].find((each) => (env[each] ?? '') !== '');
  return name === undefined ? undefined : endpointIn(env[name] as string, name);
}

function endpointIn(url: string, text: string): Endpoint {
  let parsed: URL;
  try {
    parsed = new URL(url);
  } catch {
    throw usage(text, 'names no host', FORM);
  }
  if (parsed.username !== '' || parsed.password !== '')
    throw new SqlsyncError('USAGE', 'The address of the store holds credentials; sqlsync takes none there', {
      hint: 'Every user of this host can read a command line. Put them in the environment or in ~/.aws/credentials.',
    });
  if (!/^https?:$/.test(parsed.protocol) || parsed.pathname !== '/') throw usage(text, 'names no host', FORM);
  return {
    isTls: parsed.protocol === 'https:',
    hostname: parsed.hostname.replace(/^\[|\]$/g, ''),
    port: parsed.port === '' ? undefined : Number(parsed.port),
  };
}

export function isLoopback(hostname: string): boolean {
  if (hostname === 'localhost' || hostname.endsWith('.localhost') || hostname === '::1') return true;
  return isIP(hostname) === 4 && hostname.startsWith('127.');
}

function usage(text: string, fault: string, hint: string): SqlsyncError {
  return new SqlsyncError(
    'USAGE',
    `The store ${sanitizeText(text.replace(/\/\/[^/@]*@/, '//…@'), 200)} ${fault}`,
    {
      hint,
    },
  );
}
