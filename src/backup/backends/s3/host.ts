import { isIP } from 'node:net';
import type { S3Address } from './address.ts';

/** Where requests to a bucket go. */
export interface BucketHost {
  readonly isTls: boolean;
  readonly hostname: string;
  readonly port: number;
  /** The value of the header `host`. */
  readonly header: string;
  /** The bucket as the beginning of paths, or empty if the host's name has it. */
  readonly bucketPath: string;
}

/**
 * AWS gets the bucket in the host's name, as it wants, unless a dot in it would not fit the certificate. Other services
 * get it in the path, which all but few of them take, unless the address says otherwise.
 */
export function hostFor({ bucket, endpoint, style }: S3Address, region: string): BucketHost {
  const isTls = endpoint?.isTls ?? true;
  const domain = region.startsWith('cn-') ? 'amazonaws.com.cn' : 'amazonaws.com';
  const name = endpoint?.hostname ?? `s3.${region}.${domain}`;
  const fitsHost = /^[a-z0-9-]+$/.test(bucket) && isIP(name) === 0;
  const isVirtual = style === undefined ? endpoint === undefined && fitsHost : style === 'virtual';
  const hostname = isVirtual ? `${bucket}.${name}` : name;
  const usual = isTls ? 443 : 80;
  const port = endpoint?.port ?? usual;
  const shown = hostname.includes(':') ? `[${hostname}]` : hostname;
  return {
    isTls,
    hostname,
    port,
    header: port === usual ? shown : `${shown}:${port}`,
    bucketPath: isVirtual ? '' : `/${bucket}`,
  };
}
