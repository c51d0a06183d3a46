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
(( $+functions[compdef] )) && compdef _sqlsync sqlsync`;

/** The script that a user's shell runs at its start; for the shell in SHELL if none is named. */
export function completionScript(shell: string | undefined): string {
  const isZsh = shell === 'zsh' || (shell === undefined && process.env['SHELL']?.endsWith('zsh') === true);
  return `### sqlsync completion; put it into ~/.${isZsh ? 'zshrc' : 'bashrc'}\n${isZsh ? ZSH : BASH}`;
}
