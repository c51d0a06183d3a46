import { join } from 'node:path';
import type { Page } from 'playwright-core';

/** Each page has it, before anything else runs: `addInitScript`. */
export const IN_PAGE: string = join(import.meta.dirname, 'in-page.js');

/** What in-page.js finds out. */
interface Looks {
  contrast: { readonly faults: readonly { readonly text: string }[]; readonly measured: number };
  overflow: { readonly width: number; readonly beyond: readonly string[] };
  inject: { readonly ran: boolean; readonly refused: readonly string[] };
  openAll: undefined;
  isHacked: boolean;
  elements: number;
  hasFocus: boolean;
  outline: string;
}

/** Looks at a page with in-page.js. A string is evaluated, which no policy of the page refuses. */
export function look<Name extends keyof Looks>(
  page: Page,
  name: Name,
  ...args: string[]
): Promise<Looks[Name]> {
  return page.evaluate<Looks[Name]>(`looks.${name}(${args.map((each) => JSON.stringify(each)).join()})`);
}

/** 100 names that are HTML, or try to end what is around them. */
export const HOSTILE_NAMES: readonly string[] = [
  '<script>window.hacked = 1</script>',
  '<img src=x onerror="window.hacked = 1">',
  '"><svg onload=window.hacked=1>',
  "' autofocus onfocus='window.hacked = 1",
  '</summary></details><h1>all is fine</h1>',
  '</bdi></strong></li></ul><form action="http://127.0.0.1:9/">',
  '<!--',
  '-->',
  ']]>',
  '&lt;b&gt; &amp; &#60;',
  '<style>body { display: none }</style>',
  '<link rel=stylesheet href=http://127.0.0.1:9/x.css>',
  '<iframe srcdoc="<script>parent.hacked = 1</script>">',
  '<base href="http://127.0.0.1:9/">',
  '<meta http-equiv=refresh content="0;url=http://127.0.0.1:9/">',
  'javascript:window.hacked=1',
  '<a href="javascript:window.hacked=1">db</a>',
  '</title><script>window.hacked = 1</script>',
  '</style><script>window.hacked = 1</script>',
  '${window.hacked = 1}{{1+1}}<%= 1 %>',
  '<template><slot></template>',
  '<math><mtext></mtext><mglyph><style><img src=x onerror=window.hacked=1>',
  '\u05d0\u05d1 <bdo dir=rtl>bd.live',
  'x'.repeat(300),
  '<textarea><plaintext>',
].flatMap((name) => ['/srv/', '"', '>', '</code>'].map((start) => `${start}${name}`));
