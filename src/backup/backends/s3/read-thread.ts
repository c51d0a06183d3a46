/** The thread that reads a store in S3 for one that waits. */
import { serveReads } from '../remote/serve-reads.ts';
import { S3Files } from './s3-files.ts';

serveReads((place) => new S3Files(place));
