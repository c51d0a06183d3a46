/** Stands for the package string-width, of which yargs loads the tables at every start, for help that we write ourselves. */
export { columnsOf as default } from '../cli/wrap.ts';
