#!/usr/bin/env bash
# Trains on this machine (CPU, one or more GPUs, or a TPU VM that you are logged in to), and starts
# again when the program says that it was stopped and has saved.
#
#   launch/local.sh create --extras cuda          # once: an environment in ~/.electra_jax
#   launch/local.sh run -- --config small --workdir run/ --config.data.path=data/
#   launch/local.sh resume -- --workdir run/
#   launch/local.sh delete                        # the environment; never a run
#
# Press Ctrl-C once to save a checkpoint and stop. Every command may be given twice: an environment
# that is there is kept, a run that is there is resumed, what is gone is not missed.
#
# Options, before the "--"; --extras LIST may be written --extras=LIST:
#   --extras LIST        what to install with the package: cuda, tpu, gcs, ... (default: none)
#   --from SOURCE        a wheel, or what pip takes after "@" (default: the package index)
#   --max-restarts N     of exit 75 and 134 (default: 100)
#   --dry-run            print what would be done, do nothing
#
# Ends with the status of electra-jax pretrain: 0 finished, 75 stopped by you and saved, else the
# failure, which is on the screen.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

home=${ELECTRA_HOME:-$HOME/.electra_jax}
command=${1:---help}
[ $# -eq 0 ] || shift
extras='' from=''
while [ $# -gt 0 ]; do
  case $1 in --?*=*) set -- "${1%%=*}" "${1#*=}" "${@:2}" ;; esac
  case $1 in
    --extras) value "$@"; extras=$2; shift 2 ;;
    --from) value "$@"; from=$2; shift 2 ;;
    --max-restarts) value "$@"; MAX_RESTARTS=$2; shift 2 ;;
    --dry-run) DRY_RUN=1; shift ;;
    --) shift; break ;;
    *) no_option "$1" ;;
  esac
done

create() {
  if [ "${from%.whl}" != "$from" ]; then
    [ -e "$from" ] || die "no wheel $from; make it with: python -m build --wheel"
    run mkdir -p "$home"
    run cp "$from" "$home/"
    from=$(basename "$from")
  fi
  try run bash "$LAUNCH/host.sh" install "$extras" "$from"
}

train() {
  check_restarts
  [ -n "$(workdir_of "$@")" ] || die "which run? Give -- --workdir FOLDER"
  [ -n "$DRY_RUN" ] || [ -x "$home/env/bin/electra-jax" ] || die "nothing is installed in $home; run: launch/local.sh create"
  local code child began stopped
  while :; do
    if [ -n "$DRY_RUN" ]; then
      run "$home/env/bin/electra-jax" pretrain "$@"
      return
    fi
    began=$SECONDS
    attended "$home/env/bin/electra-jax" pretrain "$@"
    case $code in
      "$FINISHED") say "finished"; return ;;
      "$PREEMPTED")
        if [ -n "$stopped" ]; then
          say "stopped and saved; go on with: launch/local.sh resume -- --workdir $(workdir_of "$@")"
          exit "$code"
        fi
        aborts=0
        again "stopped from outside, checkpoint saved"
        ;;
      "$ABORTED")
        if [ -n "$stopped" ] || crashed $((SECONDS - began)); then
          say "electra-jax pretrain aborted (exit $code)"
          exit "$code"
        fi
        again "aborted, as after the loss of another process"
        ;;
      *) say "electra-jax pretrain failed (exit $code)"; exit "$code" ;;
    esac
  done
}

case $command in
  create) create ;;
  run | resume) train "$@" ;;
  delete)
    run rm -rf "$home/env" "$home/installed"
    [ -z "$DRY_RUN" ] || say "(dry run: nothing is deleted)"
    ;;
  -h | --help | help) manual "$0" ;;
  *) die "unknown command $command; one of create, run, resume, delete" ;;
esac
