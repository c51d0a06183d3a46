import { shellWord } from '../../transport/command-words.ts';

/** Finds what the file of the login's keys says of a key, and whether a folder is there. Changes nothing. */
export function lookForKey(blob: string, line: string, folder: string): string {
  return `
[ -d ${shellWord(folder)} ] && say folder 1
file=$home/.ssh/authorized_keys
# A link to the file stays, and what it leads to is written.
target=$(readlink -f "$file" 2>/dev/null)
[ -n "$target" ] || target=$file
say file "$target"
say sum "$(cksum 2>/dev/null <"$target")"
lines() { grep -n "$@" "$target" 2>/dev/null | grep -v '^[0-9]*:[[:space:]]*#'; }
lines -F ${shellWord(blob)} | sed 's/:.*//;s/^/with=/'
lines -xF ${shellWord(line)} | sed 's/:.*//;s/^/same=/'
lines -F ${shellWord(blob)} | grep '^[0-9]*:[^ ]*command="[^"]*sqlsync[^"]* agent --restrict ' | sed 's/:.*//;s/^/ours=/'`;
}

/**
 * Puts `line` into the file in the place of line `at`, or after all of them for 0. The file is replaced whole, with its
 * mode and owner, if it is still the one with the checksum `sum`.
 */
export function writeKey(line: string, at: number, sum: string): string {
  return `
why=$(umask 077; mkdir -p "$home/.ssh" 2>&1) || { say failed "$why"; return; }
for f in "$target".sqlsync-[0-9]*; do
  [ -f "$f" ] && ! kill -0 "\${f##*-}" 2>/dev/null && rm -f "$f"
done
next=$target.sqlsync-$$
old=/dev/null
if [ -e "$target" ]; then
  old=$target
  [ "$(cksum <"$target")" = ${shellWord(sum)} ] || { say failed "$target changes at this moment"; return; }
  why=$(cp -p "$target" "$next" 2>&1) || { say failed "$why"; return; }
else
  (umask 077; : >"$next")
fi
content() {
  if [ ${at} = 0 ]; then
    cat "$old"
    [ -z "$(tail -c 1 "$old")" ] || echo
    printf '%s\\n' ${shellWord(line)}
  else
    head -n ${at - 1} "$old"
    printf '%s\\n' ${shellWord(line)}
    tail -n +${at + 1} "$old"
  fi
}
why=$({ content >"$next"; } 2>&1)
if [ "$(content | cksum)" = "$(cksum <"$next")" ] && { sync -f "$next" 2>/dev/null || sync; } && mv -f "$next" "$target"; then
  say written 1
else
  rm -f "$next"
  say failed "$target could not be written: $why"
fi`;
}
