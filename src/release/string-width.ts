/** Replaces the package string-width, whose tables yargs loads at every start, although we write the help ourselves. */
export { columnsOf as default } from '../cli/terminal/wrap.ts';
