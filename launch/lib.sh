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

# A step that creates and may have been taken before: what is there is used.
once() {
  local out
  if [ -n "$DRY_RUN" ]; then "$@"; return; fi
  if out=$("$@" 2>&1); then return; fi
  grep -qiE 'already exists|ALREADY_EXISTS' <<<"$out" || { say "$out"; return 1; }
}
# The same for deleting: what is not there any more is not missed.
gone() {
  local out
  if [ -n "$DRY_RUN" ]; then "$@"; return; fi
  if out=$("$@" 2>&1); then return; fi
  grep -qiE 'NOT_FOUND|not found' <<<"$out" || { say "$out"; return 1; }
}

pause() { [ -n "$DRY_RUN" ] || sleep "$POLL"; }

need() { [ -n "$DRY_RUN" ] || command -v "$1" >/dev/null || die "$1 is not installed; $2"; }

# A value for an option, or an error that names it. --name VALUE may be written --name=VALUE: every
# script splits the word first.
value() {
  [ $# -ge 2 ] && [ -n "$2" ] || die "$1 needs a value (see --help)"
  case $2 in --*) die "$1 needs a value, and $2 is an option (see --help)" ;; esac
}
# The same for an option whose value is itself a flag, for another program.
flag_value() { [ $# -ge 2 ] && [ -n "$2" ] && [ "$2" != -- ] || die "$1 needs a value (see --help)"; }
# What a case of options falls through to.
no_option() {
  case $1 in
    --*) die "unknown option $1 (see --help; arguments of electra-jax pretrain follow a --)" ;;
    *) die "$1 follows no option that takes a value (see --help; arguments of electra-jax pretrain follow a --)" ;;
  esac
}
count() { [[ $2 =~ ^[1-9][0-9]{0,5}$ ]] || die "$1 $2 is not a count: a whole number of at least 1"; }
check_zone() {
  [ -n "$1" ] || die "--zone is missing, e.g. --zone us-west4-a"
  if [[ $1 =~ ^[a-z]+-[a-z]+[0-9]+$ ]]; then die "--zone $1 is a region; a zone has a letter more, e.g. $1-a"; fi
  [[ $1 =~ ^[a-z]+-[a-z]+[0-9]+-[a-z]$ ]] ||
    die "--zone $1 is not written as zones are, e.g. us-west4-a: gcloud compute zones list"
}
# What clouds and clusters take for a name.
check_name() {
  [[ $1 =~ ^[a-z]([-a-z0-9]{0,59}[a-z0-9])?$ ]] ||
    die "--name $1: small letters, digits and - only, a letter first, at most 61 of them"
}
check_reservation() { # check_reservation NAME|PATH|NOTHING
  case $1 in
    '' | projects/*/reservations/?*) ;;
    */* | *' '*) die "--reservation $1 is neither a name nor projects/PROJECT/.../reservations/NAME" ;;
  esac
}
check_restarts() {
  [[ $MAX_RESTARTS =~ ^(0|[1-9][0-9]{0,4})$ ]] || die "--max-restarts $MAX_RESTARTS is not a count"
}
# One way to be given a machine: at most one of these words is not empty.
check_kinds() {
  local given='' word
  for word in "$@"; do
    [ -n "$word" ] || continue
    [ -z "$given" ] || die "$given and $word are two ways to be given a machine; choose one"
    given=$word
  done
}

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

# A program in the background, so that a signal reaches it: SIGTERM and SIGINT to the caller are passed
# on, as SIGTERM, which makes it save. Leaves its exit status in $code, and whether it was signalled in $stopped.
attended() { # attended COMMAND
  local new signalled=''
  stopped=''
  trap 'stopped=1 signalled=1; kill -TERM "$child" 2>/dev/null || true' INT TERM
  "$@" &
  child=$!
  code=0
  while :; do
    new=0
    wait "$child" || new=$?
    [ "$new" -eq 127 ] || code=$new
    [ -n "$signalled" ] || break
    signalled='' # the signal ended our wait, not the program
  done
  trap - INT TERM
}

# 134 does not tell a lost machine from a program that aborts at every start, so it counts: the
# fourth in a row is a crash. One that had trained for half an hour begins a new row.
aborts=0
crashed() { # crashed SECONDS: whether an abort so long after its start is one too many
  [ "$1" -lt 1800 ] || aborts=0
  aborts=$((aborts + 1))
  [ "$aborts" -gt 3 ]
}

# Variables of the caller that the program is given on other machines: --env NAME=VALUE, --env NAME, and those
# of this list that are set here. Folders of Hugging Face and Weights & Biases are left out, since they are
# folders of this machine. Their values are secrets: they travel in a file and are never printed.
variables=()
add_variable() { # add_variable NAME=VALUE|NAME
  local name=${1%%=*}
  [[ $name =~ ^[A-Za-z_][A-Za-z0-9_]*$ ]] || die "--env $name is not NAME=VALUE"
  case $1 in
    *=*) ;;
    *)
      [ -n "${!1+set}" ] || die "--env $1: no such variable is set here; give --env $1=VALUE"
      set -- "$1=${!1}"
      ;;
  esac
  case $1 in *$'\n'*) die "--env $name: its value has several lines, which cannot be passed on" ;; esac
  local others=() variable
  for variable in ${variables[@]+"${variables[@]}"}; do
    [ "${variable%%=*}" = "$name" ] || others+=("$variable")
  done
  variables=(${others[@]+"${others[@]}"} "$1") # the last one counts
}
inherit_variables() {
  local explicit=(${variables[@]+"${variables[@]}"}) name
  variables=()
  while IFS= read -r name; do
    case $name in
      HF_HOME | HF_TOKEN_PATH | HF_*_CACHE | WANDB_*DIR | WANDB__*) ;;
      ELECTRA_JAX_CACHE | JAX_COMPILATION_CACHE_DIR | WANDB_?* | HF_?*) add_variable "$name" ;;
    esac
  done < <(compgen -e)
  for name in ${explicit[@]+"${explicit[@]}"}; do add_variable "$name"; done
}
variable_names() {
  local variable names=''
  for variable in "${variables[@]}"; do names+=" ${variable%%=*}"; done
  printf '%s' "${names# }"
}
# A file with them, for this user's eyes only; gone with the script. In a dry run only its name.
private=''
variables_file() { # variables_file FORMAT: printf's, of name and value; leaves the path in $private
  local variable
  private=environment
  [ -z "$DRY_RUN" ] || return 0
  private=$(mktemp -d)
  trap 'rm -rf "$(dirname "$private")"' EXIT
  private=$private/environment
  for variable in "${variables[@]}"; do
    # shellcheck disable=SC2059
    (umask 077; printf "$1\n" "${variable%%=*}" "${variable#*=}" >>"$private")
  done
}

# The slices of TPUs by name: v5e-8 or v5p-16 as Google counts them (chips; cores of v4, v5p and tpu7x), or by
# shape, as electra-jax plan writes them: v5e:2x4, v5p:2x2x2. Prints generation, shape, chips, hosts and chips of a host.
shape() { # shape TYPE
  local generation sides count chips a b c best=''
  case $1 in
    v5litepod-* | v5e-* | v5e:*) generation=v5e ;;
    v6e-* | v6e:*) generation=v6e ;;
    v4-* | v4:*) generation=v4 ;;
    v5p-* | v5p:*) generation=v5p ;;
    tpu7x-* | tpu7x:*) generation=tpu7x ;;
    *) return 1 ;;
  esac
  case $1,$generation in
    *:*,v5e | *:*,v6e)
      sides=${1#*:}
      case $sides in 1x1 | 2x2 | 2x4 | 4x4 | 4x8 | 8x8 | 8x16 | 16x16) ;; *) return 1 ;; esac
      chips=$((${sides/x/*}))
      ;;
    *:*,*)
      sides=${1#*:}
      deep "$sides" || return 1
      chips=$((${sides//x/*}))
      ;;
    *,v5e | *,v6e)
      chips=${1##*-}
      case $chips in
        1) sides=1x1 ;; 4) sides=2x2 ;; 8) sides=2x4 ;; 16) sides=4x4 ;; 32) sides=4x8 ;; 64) sides=8x8 ;;
        128) sides=8x16 ;; 256) sides=16x16 ;; *) return 1 ;;
      esac
      ;;
    *)
      count=${1##*-}
      [[ $count =~ ^[1-9][0-9]{0,4}$ ]] && [ $((count % 8)) -eq 0 ] || return 1
      chips=$((count / 2))
      case $chips in
        4) sides=2x2x1 ;; 8) sides=2x2x2 ;; 16) sides=2x2x4 ;; 32) sides=2x4x4 ;;
        *) # of the shapes of whole cubes of 4x4x4, the one nearest a cube
          [ "$chips" -le 9216 ] && [ $((chips % 64)) -eq 0 ] || return 1
          for ((a = 4; a * a * a <= chips; a += 4)); do
            for ((b = a; a * b * b <= chips; b += 4)); do
              c=$((chips / a / b))
              [ $((a * b * c)) -eq "$chips" ] && [ $((c % 4)) -eq 0 ] || continue
              if [ -z "$best" ] || [ $((a + b + c)) -lt "$best" ]; then best=$((a + b + c)) sides=${a}x${b}x$c; fi
            done
          done
          [ -n "$best" ] || return 1
          ;;
      esac
      ;;
  esac
  case $chips,$generation in
    1,* | 4,* | 8,v5e | 8,v6e) echo "$generation $sides $chips 1 $chips" ;;
    *) echo "$generation $sides $chips $((chips / 4)) 4" ;;
  esac
}
deep() { # deep AxBxC: a slice of v4, v5p or tpu7x
  case $1 in 2x2x1 | 2x2x2 | 2x2x4 | 2x4x4) return ;; esac
  [[ $1 =~ ^([0-9]{1,3})x([0-9]{1,3})x([0-9]{1,3})$ ]] || return 1
  local a=$((10#${BASH_REMATCH[1]})) b=$((10#${BASH_REMATCH[2]})) c=$((10#${BASH_REMATCH[3]}))
  [ "${a}x${b}x$c" = "$1" ] && [ "$a" -ge 4 ] && [ "$a" -le "$b" ] && [ "$b" -le "$c" ] &&
    [ $((a % 4 + b % 4 + c % 4)) -eq 0 ] && [ $((a * b * c)) -le 9216 ]
}
no_shape() { # no_shape TYPE
  die "--type '$1' is unknown; v5e-1, -4, -8, -16, -32, -64, -128, -256 and the same of v6e; v4-8, -16, -32, -64 and from there multiples of 128, and the same of v5p and tpu7x; or a shape, as in v5p:4x4x8"
}

# JAX devices of a slice: the two cores of v4 and v5p are one, those of tpu7x are two.
devices() { # devices TYPE
  local known generation chips _
  if known=$(shape "$1"); then
    read -r generation _ chips _ <<<"$known"
    if [ "$generation" = tpu7x ]; then chips=$((2 * chips)); fi
    printf '%s' "$chips"
  else
    printf '%s' "${1##*-}"
  fi
}

# A mesh that electra-jax would refuse when the machine already costs.
check_mesh() { # check_mesh TYPE SLICES ARGUMENTS
  local type=$1 slices=$2 fsdp data size
  shift 2
  fsdp=$(argument --config.mesh.fsdp "$@") data=$(argument --config.mesh.data "$@") size=$(devices "$type")
  if [[ $fsdp =~ ^[1-9][0-9]*$ ]] && [ $((size % fsdp)) -ne 0 ]; then
    die "--config.mesh.fsdp=$fsdp does not divide the $size devices of a slice of $type, inside which it lies"
  fi
  if [[ $data =~ ^[1-9][0-9]*$ ]] && [ $((size * slices % data)) -ne 0 ]; then
    die "--config.mesh.data=$data does not divide the $((size * slices)) devices of $slices slice(s) of $type"
  fi
  if [[ $data =~ ^[1-9][0-9]*$ ]] && [ $((data % slices)) -ne 0 ]; then
    die "--config.mesh.data=$data is no multiple of the $slices slices, which it spans"
  fi
}
