import { parseS3Address } from '../../src/backup/backends/s3/address.ts';
import { DEFAULT_S3_LIMITS, S3Client } from '../../src/backup/backends/s3/client.ts';
import { CredentialSource } from '../../src/backup/backends/s3/credentials.ts';

/** A client of a bucket, for what stores never do: they neither make buckets nor set their policies. */
export function bucketClient(address: string, env: NodeJS.ProcessEnv = process.env): S3Client {
  const credentials = new CredentialSource(env, { asksMachine: false });
  return new S3Client(parseS3Address(address, env), credentials, { env, limits: DEFAULT_S3_LIMITS });
}

/** Makes the bucket of a store's address. */
export async function makeBucket(
  address: string,
  env?: NodeJS.ProcessEnv,
  headers: Readonly<Record<string, string>> = {},
): Promise<void> {
  await bucketClient(address, env).send({ method: 'PUT', headers, maxBytes: 65_536 });
}
