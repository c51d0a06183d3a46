import { RUN_BYTES } from '../../pages/file-pages.ts';
import type { PageSource } from '../../pages/page-source.ts';
import { pageNumber } from '../../pages/page-types.ts';
import type { CopyProgress } from '../agents/page-copy.ts';
import { CopyReport } from '../local/copy-report.ts';
import type { PageStream } from './page-stream.ts';

/**
 * Writes the pages of a source of this process to a stream, after those that the stream already has. Throws what the
 * source and the stream throw.
 */
export async function streamSource(
  source: PageSource,
  stream: PageStream,
  onProgress?: (progress: CopyProgress) => void,
): Promise<void> {
  const { pageSize, pageCount } = source;
  const pagesPerRun = RUN_BYTES / pageSize;
  const report = new CopyReport(source, onProgress);
  for (let first = stream.bytes / pageSize + 1; first <= pageCount; first += pagesPerRun) {
    const count = Math.min(pagesPerRun, pageCount - first + 1);
    const bytes = source.readPages(pageNumber(first), count);
    const next = Math.min(pagesPerRun, pageCount - first - count + 1);
    source.readAhead?.(Array.from({ length: Math.max(0, next) }, (_, i) => first + count + i));
    stream.add(bytes);
    report.run(pageNumber(first), bytes);
    await stream.ready();
  }
  await stream.end();
  report.end();
}
