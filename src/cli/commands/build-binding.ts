import { buildBinding } from '../../sqlite/build-binding.ts';
import { EXIT_OK } from '../exit.ts';

/** `sqlsync build-binding`: compiles the native binding where the package has none for this platform. */
export async function runBuildBindingCommand(): Promise<number> {
  await buildBinding();
  return EXIT_OK;
}
