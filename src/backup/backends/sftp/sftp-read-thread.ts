/** The thread that reads a store by SFTP for one that waits. It has a connection of its own. */
import { serveReads } from '../remote/serve-reads.ts';
import { sftpPlace } from './sftp-connect.ts';
import { SftpFiles } from './sftp-files.ts';

serveReads(({ address }) => new SftpFiles(sftpPlace(address), true));
