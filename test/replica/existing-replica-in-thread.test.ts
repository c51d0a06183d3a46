/** The same tests once more, with all replicas written in a thread of their own, as only large changes are otherwise. */
import '../support/environment.ts';

process.env['SQLSYNC_WRITER_THREAD_MIN_BYTES'] = '0';
await import('./existing-replica.test.ts');
