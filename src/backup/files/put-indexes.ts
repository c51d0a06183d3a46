import type { ObjectIndex } from '../objects/object-index.ts';
import { putIndexFiles } from '../objects/pack-writer.ts';
import type { KnownPack } from '../objects/trust.ts';
import type { StoreAccess, StoreContents } from './store-files.ts';

/**
 * Puts indexes that replace those index files that name one of the `dropped` packs, or all. They name the other packs
 * of these files, and those of `more`. Returns the files that can be deleted then.
 */
export async function putIndexesWithout(
  access: StoreAccess,
  { index, indexFiles }: Pick<StoreContents, 'indexFiles'> & { readonly index: ObjectIndex },
  dropped: ReadonlySet<string>,
  { takesAll = false, more = [] }: { readonly takesAll?: boolean; readonly more?: Iterable<string> },
): Promise<string[]> {
  const replaced = [...indexFiles].filter(([, packs]) => takesAll || packs.some((pack) => dropped.has(pack)));
  const kept = replaced.flatMap(([, packs]) => packs).filter((pack) => !dropped.has(pack));
  const packs = [...new Set([...kept, ...more])].map((pack) =>
    index.describe(index.packs.get(pack) as KnownPack),
  );
  const written = new Set((await putIndexFiles(access, packs)).map(({ name }) => name));
  // The same packs in the same order make the same file.
  return replaced.flatMap(([name]) => (written.has(name) ? [] : `indexes/${name}`));
}
