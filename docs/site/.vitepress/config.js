/** Makes a site of the manual: all Markdown files of the project that a user reads, where they are. */
import { posix } from 'node:path';
import { defineConfig } from 'vitepress';

/** The pages by part of the manual: the name in the sidebar, and the file. */
const PARTS = {
  Copies: {
    'Over SSH': 'docs/remote.md',
    Following: 'docs/follow.md',
    'Cron and systemd': 'docs/jobs.md',
    'One service for all': 'docs/service.md',
    'Five recipes': 'docs/recipes.md',
    Doctor: 'docs/doctor.md',
  },
  Backups: {
    'Backups with history': 'docs/backup.md',
    'Places of stores': 'docs/stores.md',
    'Your server is gone': 'docs/server-gone.md',
  },
  Reference: {
    Commands: 'docs/cli.md',
    Library: 'docs/library.md',
    'Format of a store': 'docs/store-format.md',
    'Wire protocol': 'protocol/SPEC.md',
    Changes: 'CHANGELOG.md',
  },
  'What holds': {
    Reliability: 'docs/reliability.md',
    Security: 'docs/security.md',
    Measurements: 'bench/RESULTS.md',
  },
  'How it is made': {
    Architecture: 'docs/architecture.md',
    Contributing: 'CONTRIBUTING.md',
    Releasing: 'docs/releasing.md',
    'Reporting a hole': 'SECURITY.md',
  },
};

const PAGES = new Set(['README.md', ...Object.values(PARTS).flatMap((part) => Object.values(part))]);

export default defineConfig({
  srcDir: '../..',
  srcExclude: [
    '{bin,build,dist,fixtures,prebuilds,src,test,node_modules}/**',
    'docs/site/**',
    'bench/{data/**,README.md}',
  ],
  outDir: '../../build/site',
  cacheDir: './node_modules/.cache',
  rewrites: { 'README.md': 'index.md' },
  title: 'sqlsync',
  description: 'Exact copies of live SQLite databases, over SSH or locally',
  cleanUrls: false,
  themeConfig: {
    search: { provider: 'local' },
    outline: [2, 3],
    sidebar: Object.entries(PARTS).map(([text, part]) => ({
      text,
      items: Object.entries(part).map(([name, file]) => ({
        text: name,
        link: `/${file.replace(/\.md$/, '')}`,
      })),
    })),
  },
  markdown: {
    // What looks like HTML or Vue in the manual is text.
    html: false,
    languageAlias: { conf: 'ini' },
    attrs: { disable: true },
    anchor: { slugify: anchorOf },
    config(md) {
      md.core.ruler.push('links', (state) => mendLinks(state.tokens, state.env.relativePath));
      // Code that is set off by its indentation scrolls as the other code does.
      md.renderer.rules.code_block = (tokens, at, ...more) => {
        tokens[at].info = 'txt';
        return md.renderer.rules.fence(tokens, at, ...more);
      };
    },
  },
});

/** As code hosts do it, which the links of the manual are written for. */
function anchorOf(heading) {
  return heading
    .trim()
    .toLowerCase()
    .replaceAll(/[^\p{L}\p{N}\s_-]/gu, '')
    .replaceAll(/\s/g, '-');
}

/** Links to the README lead to the first page, and those to files that are no pages, such as sources, become their text. */
function mendLinks(tokens, page) {
  for (const token of tokens) {
    if (token.children === null) continue;
    let isDropped = false;
    token.children = token.children.filter((child) => {
      if (child.type === 'link_close' && isDropped) return (isDropped = false);
      if (child.type !== 'link_open') return true;
      const href = child.attrGet('href') ?? '';
      const [path = '', anchor] = href.split('#');
      if (path === '' || /^[a-z]+:/.test(href)) return true;
      const file = posix.join(posix.dirname(page), path);
      if (file === 'README.md') child.attrSet('href', `/${anchor === undefined ? '' : `#${anchor}`}`);
      isDropped = !PAGES.has(file);
      return !isDropped;
    });
  }
}
