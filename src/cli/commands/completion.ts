import { basename } from 'node:path';
import { SqlsyncError, sanitizeText } from '../../errors.ts';
import { hintAtDatabase, defineCommand } from '../options/command.ts';
import type { Command } from '../options/command.ts';
import { EXIT_OK } from '../terminal/exit.ts';

/** The flag with which the scripts below call the program; the words of the command line follow, its name first. */
export const COMPLETION_FLAG = '--get-yargs-completions';

/** Stands among the completions for names of files, which the shell completes itself. */
export const FILES = ':files';

/**
 * Leaves files with quotes, `~` and the like to bash, which can read and write them. Leaves out the files that sqlsync
 * keeps beside a database (.app.db.sqlsync…): they are no arguments.
 */
const BASH = `_sqlsync() {
  local current="\${COMP_WORDS[COMP_CWORD]}" word
  local -a offered=() words=()
  while IFS= read -r word; do offered+=("$word"); done < <(
    sqlsync ${COMPLETION_FLAG} "\${COMP_WORDS[@]:0:COMP_CWORD+1}" 2>/dev/null
  )
  COMPREPLY=()
  for word in "\${offered[@]}"; do
    if [ "$word" != '${FILES}' ]; then words+=("$word"); continue; fi
    case "$current" in
      *[\\\\\\"\\'\\$~\\\`]*) compopt -o bashdefault -o default 2>/dev/null; break ;;
    esac
    compopt -o filenames 2>/dev/null
    while IFS= read -r word; do
      case "\${word##*/}" in . | .. | .*.sqlsync*) ;; *) COMPREPLY+=("$word") ;; esac
    done < <(compgen -f -- "$current")
  done
  COMPREPLY+=("\${words[@]}")
}
complete -F _sqlsync sqlsync`;

const ZSH = `#compdef sqlsync
_sqlsync() {
  local -a offered
  offered=("\${(@f)$(sqlsync ${COMPLETION_FLAG} "\${(@)words[1,CURRENT]}" 2>/dev/null)}")
  compadd -- \${offered:#${FILES}}
  (( \${offered[(Ie)${FILES}]} )) && _files -F '(.*.sqlsync*)'
}
# As a file named _sqlsync in a folder of fpath, this is the function's first call.
if [ "$funcstack[1]" = _sqlsync ]; then _sqlsync "$@"
elif (( $+functions[compdef] )); then compdef _sqlsync sqlsync; fi`;

const FISH = `function _sqlsync
  set -l current (commandline -ct)
  for word in (sqlsync ${COMPLETION_FLAG} (commandline -opc) "$current" 2>/dev/null)
    if test "$word" = '${FILES}'
      __fish_complete_path "$current" | string match -rv '(^|/)\\.[^/\\t]*\\.sqlsync'
    else
      echo $word
    end
  end
end
complete -c sqlsync -f -a '(_sqlsync)'`;

/** The script that a user's shell runs at its start, or finds in the system's folder of completions; by shell. */
export const COMPLETION_SCRIPTS: Readonly<Record<string, string>> = { bash: BASH, zsh: ZSH, fish: FISH };

export const command: Command = defineCommand({
  name: 'completion',
  usage: '[shell]',
  describe: 'Print a script for shell completion',
  example: 'sqlsync completion bash',
  operands: { shell: 'bash, zsh or fish; without it, that of SHELL' },
  options: {},
  group: 'This program',
  run({ shell: named }) {
    const shell = named ?? basename(process.env['SHELL'] || 'bash');
    if (!Object.hasOwn(COMPLETION_SCRIPTS, shell)) {
      const failure = new SqlsyncError('USAGE', `there is no completion for ${sanitizeText(shell, 100)}`, {
        hint: 'Give bash, zsh or fish.',
      });
      throw named === undefined ? failure : hintAtDatabase('completion', failure);
    }
    process.stdout.write(`${COMPLETION_SCRIPTS[shell]}\n`);
    return Promise.resolve(EXIT_OK);
  },
});
