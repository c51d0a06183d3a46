/** Replaces `yargs/helpers` in the bundle: the rest of that module loads what yargs prints help with. */
export { default as Parser } from 'yargs-parser';
