# shellcheck shell=bash disable=SC2034
# What the launch scripts share: it is read by them, not run.

set -euo pipefail

# Exit statuses of electra-jax pretrain that mean something to a launcher; see README.md.
FINISHED=0
PREEMPTED=75 # stopped from outside, checkpoint saved: start it again
ABORTED=134  # by JAX, because another process of the run fell silent; or a crash in native code

LAUNCH=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
POLL=${ELECTRA_POLL_SECONDS:-30} # between two looks at something that takes long
DRY_RUN=

say() { printf '%s\n' "$*" >&2; }
die() { # a mistake of the user's, or something this script cannot mend
  say "error: $*"
  exit 2
}

# Prints the comment at the top of a script, which is its manual.
manual() { sed -n '2,/^[^#]/{/^#/!d; s/^# \{0,1\}//; p}' "$1"; }

# Runs a command; with --dry-run only prints it, in a form that can be pasted into a shell.
run() {
  if [ -n "$DRY_RUN" ]; then
    printf '+'
    printf ' %q' "$@"
    printf '\n'
  else
    "$@"
  fi
}

# A command that may be repeated, up to three times: clouds and networks hiccup.
try() {
  local attempt code=0
  for attempt in 1 2 3; do
    code=0
    "$@" || code=$?
    [ "$code" -ne 0 ] || return 0
    [ "$attempt" -eq 3 ] || { say "attempt $attempt of 3 failed ($1 ... exit $code)"; pause; }
  done
  return "$code"
}

pause() { [ -n "$DRY_RUN" ] || sleep "$POLL"; }

need() { [ -n "$DRY_RUN" ] || command -v "$1" >/dev/null || die "$1 is not installed; $2"; }

# A value for an option, or an error that names it.
value() { [ $# -ge 2 ] && [ -n "$2" ] || die "$1 needs a value (see --help)"; }

# The value of a flag among the arguments of electra-jax pretrain; the last one counts.
argument() { # argument FLAG ARGUMENTS
  local flag=$1 found=''
  shift
  while [ $# -gt 0 ]; do
    case $1 in
      "$flag") found=${2:-} ;;
      "$flag"=*) found=${1#*=} ;;
    esac
    shift
  done
  printf '%s' "$found"
}
workdir_of() { argument --workdir "$@"; }

# What everybody who waits for exit 75 does: count, and give up at some point.
restarts=0
again() { # again REASON
  restarts=$((restarts + 1))
  [ "$restarts" -le "$MAX_RESTARTS" ] ||
    die "stopped $restarts times ($1); giving up after --max-restarts $MAX_RESTARTS"
  say "$1; starting again ($restarts of at most $MAX_RESTARTS)"
  pause
}
MAX_RESTARTS=100

# 134 does not tell a lost machine from a program that aborts at every start, so it counts: the
# fourth in a row is a crash. One that had trained for half an hour begins a new row.
aborts=0
crashed() { # crashed SECONDS: whether an abort so long after its start is one too many
  [ "$1" -lt 1800 ] || aborts=0
  aborts=$((aborts + 1))
  [ "$aborts" -gt 3 ]
}
