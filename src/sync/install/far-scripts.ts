/**
 * What a POSIX shell on the other host does. Nothing here comes from a user or from a host but what `quoted` gives.
 *
 *     ~/.local/share/sqlsync/0.1.0/             a version, with the SHA-256 of its bundle in .bundle
 *     ~/.local/share/sqlsync/.new-PID/          one that the shell PID is unpacking
 *     ~/.local/bin/sqlsync                      a link to .../0.1.0/bin/sqlsync
 */

/** Defines names and functions for all others. Every answer is a line `name=value`. */
export const PRELUDE = `
home=\${HOME%/}
root=$home/.local/share/sqlsync
bin=$home/.local/bin
link=$bin/sqlsync
new=$root/.new-$$
say() { printf '%s=%s\\n' "$1" "$2" | tr '\\000-\\011\\013-\\037' '?'; }
one() { tail -n 3 | tr '\\n' ' '; }
leads() { readlink "$link" 2>/dev/null; }
current() {
  case $(leads) in
    "$root"/*/bin/sqlsync) leads | sed 's,/bin/sqlsync$,,' ;;
  esac
}
used() {
  [ -d /proc/self ] || return 0
  [ -n "$(printf '%s\\n' "$(cd -P "$1" && pwd)/" "$link" | grep -lsF -f - /proc/[0-9]*/cmdline 2>/dev/null)" ]
}
clear() {
  for d in "$root"/.new-* "$bin"/.sqlsync-[0-9]*; do
    [ -d "$d" ] || [ -h "$d" ] || continue
    kill -0 "\${d##*-}" 2>/dev/null || rm -rf "$d"
  done
}`;

/** Looks, and changes nothing. */
export const SURVEY = `
if [ -z "$home" ] || ! [ -d "$home" ]; then say failed "the login has no home folder: HOME is '$HOME'"; return; fi
say home "$home"
say user "$(id -un 2>/dev/null)"
say system "$(uname -s) $(uname -m)"
say glibc "$(getconf GNU_LIBC_VERSION 2>/dev/null)"
for f in /lib/ld-musl-*; do [ -e "$f" ] && say musl "$f"; done
for t in tar gzip head tail find wc grep sed readlink; do
  command -v "$t" >/dev/null 2>&1 || say lacks "$t"
done
say onPath "$(command -v sqlsync 2>/dev/null)"
say current "$(current)"
if [ -n "$(current)" ]; then
  say version "$("$link" --version </dev/null 2>/dev/null | one)"
elif [ -e "$link" ] || [ -h "$link" ]; then
  say foreign "$link"
fi
for d in "$root"/[0-9]*; do
  [ -d "$d" ] || continue
  say place "\${d##*/}"
  used "$d" && say used "\${d##*/}"
done
say sha256 "$(cat "$(current)/.bundle" 2>/dev/null)"
d=$root
while ! [ -d "$d" ]; do d=\${d%/*}; done
say freeKib "$(df -Pk "$d" 2>/dev/null | tail -n 1 | awk '{ print $4 }')"`;

/** The folder for a new version is removed when this shell ends, for whatever reason. */
export const PREPARE = `
why=$(mkdir -p "$root" "$bin" 2>&1) || { say failed "$why"; return; }
clear
trap 'rm -rf "$new"' EXIT
trap 'exit 1' HUP INT PIPE TERM
rm -rf "$new"
why=$(mkdir "$new" 2>&1) || { say failed "$why"; return; }
{ printf '#!/bin/sh\\nexit 0\\n' >"$new/try" && chmod 700 "$new/try"; } 2>/dev/null
if [ -s "$new/try" ]; then "$new/try" 2>/dev/null || say noexec 1; else say failed 'nothing can be written there'; fi
rm -f "$new/try"`;

/**
 * Unpacks a bundle of so many bytes. All of it is read even if tar fails: the shell would take the rest for commands.
 */
export function unpack(sizeBytes: number): string {
  return `{ head -c ${sizeBytes} || kill $$; } | {
{ tar -x -z -o -f - -C "$new" --strip-components=1; echo "status=$?"; } 2>&1 | tail -n 4
cat >/dev/null
}`;
}

export const DISCARD = 'rm -rf "$new"';

/** Looks at what was unpacked: a full disk can cut files without an error of tar. */
export const CHECK = `
sync -f "$new" 2>/dev/null || sync
say bytes "$(find "$new" -type f -exec cat {} + 2>/dev/null | wc -c | tr -d ' ')"
say version "$("$new/bin/sqlsync" --version </dev/null 2>&1 | one)"`;

/** Gives the new version its name and moves a new link over the old one, so that there is a sqlsync at any moment. */
export function switchTo(version: string, sha256: string): string {
  return `
to=$root/${version}
[ -e "$to" ] && to=$to-${sha256.slice(0, 8)}
[ -e "$to" ] && to=$to-$$
if [ -z "$(current)" ] && { [ -e "$link" ] || [ -h "$link" ]; }; then say failed "$link is there"; return; fi
next=$bin/.sqlsync-$$
why=$({ printf '%s\\n' ${sha256} >"$new/.bundle" && mv "$new" "$to"; } 2>&1) || { say failed "$why"; return; }
rm -f "$next"
why=$({ ln -s "$to/bin/sqlsync" "$next" && mv -f "$next" "$link"; } 2>&1) || {
  rm -rf "$next" "$to"
  say failed "$why"
  return
}
say place "$to"`;
}

/** Removes versions that no process runs from; a process keeps its files only while their names are there. */
export const REMOVE_OLD = `
now=$(current)
[ -n "$now" ] || return
for d in "$root"/[0-9]*; do
  [ -d "$d" ] && [ "$d" != "$now" ] || continue
  if used "$d"; then say kept "\${d##*/}"; else rm -rf "$d" && say removed "\${d##*/}"; fi
done`;

export const UNINSTALL = `
clear
[ -n "$(current)" ] && rm -f "$link" && say removed sqlsync
for d in "$root"/[0-9]*; do
  [ -d "$d" ] || continue
  if used "$d"; then say kept "\${d##*/}"; else rm -rf "$d" && say removed "\${d##*/}"; fi
done
rmdir "$root" 2>/dev/null`;
