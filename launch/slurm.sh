#!/usr/bin/env bash
# Trains on GPU nodes under Slurm, one or several. Run it on the login node; your home and the
# workdir have to be on a disk that all nodes share.
#
#   launch/slurm.sh create                                 # once: an environment in ~/.electra_jax
#   launch/slurm.sh run --name electra --nodes 2 --gpus 8 --time 24:00:00 -- \
#     --config base --workdir /shared/run --config.data.path=/shared/data
#   launch/slurm.sh resume --name electra ... -- --workdir /shared/run
#   launch/slurm.sh logs --name electra
#   launch/slurm.sh delete --name electra                  # cancels the job; it saves first
#
# run submits the job and shows its log until it ends. Ctrl-C leaves the job alone; the same command
# shows it again, because a job of this name that waits or runs is not submitted twice. When the
# time limit or a preemption comes near, Slurm tells the program, which saves and ends with 75, and
# the job puts itself back into the queue.
#
# Options, before the "--"; --name VALUE may be written --name=VALUE. The job has the environment of this shell:
#   --name NAME          of the job (default: electra)
#   --nodes N            default: 1
#   --gpus N             of each node (default: 1)
#   --time LIMIT         of one stay on the nodes, e.g. 24:00:00 (default: the partition's)
#   --partition NAME, --account NAME
#   --sbatch-flag FLAG   one more flag for sbatch, e.g. --constraint=h100; may be repeated
#   --extras LIST        for create: what to install (default: cuda)
#   --from SOURCE        for create: a wheel, or what pip takes after "@"
#   --dry-run            print what would be done, do nothing
#
# Ends with the status of electra-jax pretrain: 0 finished, else the failure, after the log's end.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

home=${ELECTRA_HOME:-$HOME/.electra_jax}
command=${1:---help}
[ $# -eq 0 ] || shift
name=electra nodes=1 gpus=1 extras=cuda from='' flags=()
while [ $# -gt 0 ]; do
  case $1 in --?*=*) set -- "${1%%=*}" "${1#*=}" "${@:2}" ;; esac
  case $1 in
    --name) value "$@"; name=$2; shift 2 ;;
    --nodes) value "$@"; nodes=$2; shift 2 ;;
    --gpus) value "$@"; gpus=$2; shift 2 ;;
    --time | --partition | --account) value "$@"; flags+=("$1=$2"); shift 2 ;;
    --sbatch-flag) flag_value "$@"; flags+=("$2"); shift 2 ;;
    --extras) value "$@"; extras=$2; shift 2 ;;
    --from) value "$@"; from=$2; shift 2 ;;
    --dry-run) DRY_RUN=1; shift ;;
    --) shift; break ;;
    *) no_option "$1" ;;
  esac
done
count --nodes "$nodes"
count --gpus "$gpus"
job=$home/slurm/$name # its log and, when it has ended for good, its status

# The number of the job of this name that waits or runs; nothing when there is none.
queued() { squeue --noheader --format=%i --name="$name" --user="$(id -un)" | head -n 1; }
ask_queued() {
  local attempt
  for attempt in 1 2 3; do
    if queued; then return; fi
    [ "$attempt" -eq 3 ] || sleep "$POLL"
  done
  die "squeue does not answer; the job, if any, is left as it is"
}

submit() {
  [ -n "$(workdir_of "$@")" ] || die "which run? Give -- --workdir FOLDER"
  [ -n "$DRY_RUN" ] || [ -x "$home/env/bin/electra-jax" ] || die "nothing is installed in $home; run: launch/slurm.sh create"
  local tasks=1 attempt
  # Across nodes every GPU has a process of its own, which is how JAX finds its way under Slurm.
  [ "$nodes" -eq 1 ] || tasks=$gpus
  run mkdir -p "$job"
  run rm -f "$job/exit" "$job/aborts"
  local submission=(sbatch --job-name="$name" --nodes="$nodes" --ntasks-per-node="$tasks" --gpus-per-node="$gpus"
    --output="$job/log" ${flags[@]+"${flags[@]}"} --export="ALL,ELECTRA_JOB=$job,ELECTRA_ENV=$home/env"
    "$LAUNCH/slurm.sbatch" "$@")
  if [ -n "$DRY_RUN" ]; then run "${submission[@]}"; return; fi
  for attempt in 1 2 3; do
    # A lost answer is not a lost job: look before asking again.
    if "${submission[@]}" || [ -n "$(ask_queued)" ] || [ -e "$job/exit" ]; then return; fi
    [ "$attempt" -eq 3 ] || pause
  done
  die "sbatch does not take the job; see above"
}

# Shows the log until the job has left the queue.
follow() {
  if [ -n "$DRY_RUN" ]; then run tail -n +1 -F "$job/log"; return; fi
  local shown=0 lines
  while :; do
    local here=1
    [ -n "$(ask_queued)" ] || here=''
    if [ -e "$job/log" ]; then
      lines=$(wc -l <"$job/log")
      [ "$lines" -ge "$shown" ] || shown=0
      [ "$lines" -eq "$shown" ] || sed -n "$((shown + 1)),${lines}p" "$job/log"
      shown=$lines
    fi
    [ -n "$here" ] || break
    sleep "${ELECTRA_POLL_SECONDS:-5}"
  done
}

train() {
  need sbatch "this is not a login node of a Slurm cluster"
  local code
  if [ -z "$DRY_RUN" ] && [ -n "$(ask_queued)" ]; then
    say "a job named $name is in the queue already; showing its log"
  else
    submit "$@"
  fi
  follow
  [ -z "$DRY_RUN" ] || return 0
  code=$(cat "$job/exit" 2>/dev/null || echo lost)
  case $code in
    "$FINISHED") say "finished" ;;
    "$PREEMPTED") say "stopped and saved, but the job is not in the queue any more (cancelled?); go on with: launch/slurm.sh resume"; exit "$code" ;;
    lost) say "the job left the queue without a word (cancelled or killed; see: sacct --name $name); its log ends above"; exit 1 ;;
    *) say "electra-jax pretrain failed (exit $code); its log ends above"; exit "$code" ;;
  esac
}

case $command in
  create)
    if [ "${from%.whl}" != "$from" ]; then
      [ -e "$from" ] || die "no wheel $from; make it with: python -m build --wheel"
      run mkdir -p "$home"
      run cp "$from" "$home/"
      from=$(basename "$from")
    fi
    try run bash "$LAUNCH/host.sh" install "$extras" "$from"
    ;;
  run | resume) train "$@" ;;
  logs) follow ;;
  delete)
    mine=(--name="$name" --user="$(id -un)")
    if [ -n "$DRY_RUN" ]; then
      run scancel --state=PENDING "${mine[@]}"
      run scancel --state=RUNNING --signal=TERM "${mine[@]}"
      say "(dry run: no job is cancelled)"
    elif [ -z "$(ask_queued)" ]; then
      say "no job named $name is in the queue"
    elif [ -e "$job/cancelled" ]; then
      try scancel "${mine[@]}"
      say "job $name is ended at once; its last checkpoint stays"
    else
      mkdir -p "$job"
      touch "$job/cancelled" # keeps the job from queueing itself again once it has saved
      try scancel --state=PENDING "${mine[@]}"
      try scancel --state=RUNNING --signal=TERM "${mine[@]}"
      say "job $name saves and ends; give the command again to end it at once"
    fi
    ;;
  -h | --help | help) manual "$0" ;;
  *) die "unknown command $command; one of create, run, resume, logs, delete" ;;
esac
