# shellcheck shell=bash
# What the fakes share: every call is recorded in $FAKE/calls and may be told to fail.
#   $FAKE/PROGRAM.fail_at   numbers of the calls of this program that fail before they do anything
#   $FAKE/PROGRAM.lose_at   numbers of the calls that do their work and then fail: the answer is lost
set -euo pipefail
program=$(basename "$0")
mkdir -p "$FAKE"
exec 8>"$FAKE/$program.lock" # hosts are called at the same time
flock 8
calls=$(($(cat "$FAKE/$program.n" 2>/dev/null || echo 0) + 1))
echo "$calls" >"$FAKE/$program.n"
printf '%s %s\n' "$program" "$*" >>"$FAKE/calls"
exec 8>&-
listed() { grep -qxF "$calls" "$FAKE/$program.$1" 2>/dev/null; }
if listed fail_at; then
  echo "ERROR: ($program) UNAVAILABLE: the service is not available" >&2
  exit 1
fi
if listed lose_at; then
  # shellcheck disable=SC2154
  trap 'code=$?; if [ "$code" -eq 0 ]; then echo "ERROR: ($program) DEADLINE_EXCEEDED" >&2; exit 1; fi' EXIT
fi
# The value of --flag=value among the arguments.
flag() {
  local wanted=$1 argument
  shift
  for argument in "$@"; do
    case $argument in "--$wanted="*) printf '%s' "${argument#*=}" ;; esac
  done
}
# Another machine: it has no variables of the caller but those of the fakes.
elsewhere() { # elsewhere HOME COMMAND
  local home=$1
  shift
  env -i HOME="$home" PATH="$PATH" FAKE="$FAKE" ELECTRA_TAIL_SECONDS="${ELECTRA_TAIL_SECONDS:-1}" "$@"
}
