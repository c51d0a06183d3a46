/**
 * The same tests once more, with all replicas written in a thread of their own, as otherwise only large
 * changes are.
 */
import '../support/environment.ts';

process.env['SQLSYNC_WRITER_THREAD_MIN_BYTES'] = '0';
await import('./journal-modes.test.ts');
