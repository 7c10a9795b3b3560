#!/usr/bin/env bash
# Trains on Cloud TPUs: one host, a slice of many hosts, several slices; on demand or spot.
#
#   launch/tpu.sh run --name electra --zone us-west4-a --type v5e-8 --spot -- \
#     --config small --workdir gs://BUCKET/run --config.data.path=gs://BUCKET/data
#
# That one command asks for the machine, waits for it, installs the package on every host, starts
# training, shows its log, and does all of it again whenever the machine is taken away, until the
# run is finished. Close the terminal whenever you like: training goes on, and the same command
# shows it again. Only the automatic restart needs this script to be running.
#
#   create    only the machine (waits until it is ready)
#   run       everything above; what exists is used, what runs is left running
#   resume    the same for a run that has begun: -- --workdir gs://BUCKET/run is enough
#   logs      the log of what runs there
#   status    NONE, WAITING, READY, PREEMPTED or FAILED
#   stop      save a checkpoint and end training; the machine stays (and costs)
#   delete    the machine; your bucket is not touched. Costs end here and nowhere else
#
# Options, before the "--":
#   --name NAME          of the machine (required)
#   --zone ZONE          required; where types are offered: cloud.google.com/tpu/docs/regions-zones
#   --type TYPE          v5e-8, v5e-16, v6e-8, v5p-8, v4-8, ... (required to create)
#   --spot               cheaper, and may be taken away at any time; training resumes by itself
#   --slices N           several slices of one type, one run (default: 1); v4 and later. mesh.data spans
#                        them, mesh.fsdp lies inside each; plan it: electra-jax plan --topology 2xv5e-8
#   --direct             ask for the machine now instead of queueing for it (no --slices)
#   --project PROJECT    default: that of gcloud config
#   --runtime VERSION    software of the machine (default: by type)
#   --from SOURCE        a wheel, or what pip takes after "@" (default: the package index)
#   --create-flag FLAG   one more flag for gcloud's create, e.g. --network=NAME; may be repeated
#   --max-restarts N     after preemptions and lost hosts (default: 100)
#   --dry-run            print what would be done, do nothing
#
# Several hosts, and spot machines, whose disks vanish, need a --workdir on a bucket.
# Ends with the status of electra-jax pretrain: 0 finished, else the failure, after the log's end.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

command=${1:---help}
[ $# -eq 0 ] || shift
name='' zone='' type='' slices=1 spot='' direct='' project='' runtime='' from='' create_flags=()
while [ $# -gt 0 ]; do
  case $1 in
    --name) value "$@"; name=$2; shift 2 ;;
    --zone) value "$@"; zone=$2; shift 2 ;;
    --type) value "$@"; type=$2; shift 2 ;;
    --slices) value "$@"; slices=$2; shift 2 ;;
    --spot) spot=--spot; shift ;;
    --direct) direct=1; shift ;;
    --project) value "$@"; project=$2; shift 2 ;;
    --runtime) value "$@"; runtime=$2; shift 2 ;;
    --from) value "$@"; from=$2; shift 2 ;;
    --create-flag) value "$@"; create_flags+=("$2"); shift 2 ;;
    --max-restarts) value "$@"; MAX_RESTARTS=$2; shift 2 ;;
    --dry-run) DRY_RUN=1; shift ;;
    --) shift; break ;;
    *) die "unknown option $1 (arguments of electra-jax pretrain follow a --)" ;;
  esac
done

tpu() { # tpu queued-resources|tpu-vm VERB ARGUMENTS
  run gcloud compute tpus "$@" --zone="$zone" ${project:+--project="$project"}
}

# gcloud's name of a type, and the software that machines of its generation run.
accelerator() { printf '%s' "${type/#v5e-/v5litepod-}"; }
runtime_version() {
  case $runtime,$(accelerator) in
    ?*,*) printf '%s' "$runtime" ;;
    ,v6e-*) printf 'v2-alpha-tpuv6e' ;;
    ,v5p-*) printf 'v2-alpha-tpuv5' ;;
    ,v5litepod-*) printf 'v2-alpha-tpuv5-lite' ;;
    ,v[234]-*) printf 'tpu-ubuntu2204-base' ;;
    *) die "--type $type: no such generation; known are v2, v3, v4, v5e, v5p and v6e (else give --runtime)" ;;
  esac
}

# JAX devices of a slice: names count cores up to v5p, two of which are one device on v4 and v5p.
devices() {
  local count=${type##*-}
  case $(accelerator) in
    v4-* | v5p-*) count=$((count / 2)) ;;
  esac
  printf '%s' "$count"
}

# A field of a resource; NONE where there is no such resource. Fails when gcloud cannot tell.
field() { # field KIND NAME FORMAT
  local out
  if out=$(tpu "$1" describe "$2" --format="value($3)" 2>&1); then
    printf '%s' "${out##*$'\n'}"
  elif grep -qiE 'NOT_FOUND|not found' <<<"$out"; then
    printf 'NONE'
  else
    say "$out"
    return 1
  fi
}

nodes() {
  local i
  if [ "$slices" -eq 1 ]; then echo "$name"; return; fi
  for ((i = 0; i < slices; i++)); do echo "$name-$i"; done
}

# One word for the whole: NONE, WAITING, READY, PREEMPTED or FAILED.
status() {
  local state node
  if [ -z "$direct" ]; then
    state=$(field queued-resources "$name" state.state) || return 1
    case $state in
      NONE) echo NONE; return ;;
      FAILED) echo FAILED; return ;;
      SUSPENDED) echo PREEMPTED; return ;;
      ACTIVE) ;;
      *) echo WAITING; return ;; # CREATING, ACCEPTED, WAITING_FOR_RESOURCES, PROVISIONING, SUSPENDING, DELETING
    esac
  fi
  for node in $(nodes); do
    state=$(field tpu-vm "$node" state) || return 1
    case $state in
      READY) ;;
      NONE)
        if [ -n "$direct" ]; then echo NONE; else echo PREEMPTED; fi
        return
        ;;
      PREEMPTED | TERMINATED | STOPPED) echo PREEMPTED; return ;;
      *) echo WAITING; return ;;
    esac
  done
  echo READY
}

# Patient: a question that fails is asked again.
ask_status() {
  local attempt
  for attempt in 1 2 3; do
    if status; then return; fi
    [ "$attempt" -eq 3 ] || sleep "$POLL"
  done
  die "gcloud cannot say what became of $name; see the message above"
}

request() {
  local flags=(--accelerator-type="$(accelerator)") version
  version=$(runtime_version)
  flags+=(${spot:+"$spot"} ${create_flags[@]+"${create_flags[@]}"}) # the + is for the bash of macOS
  if [ -n "$direct" ]; then
    tpu tpu-vm create "$name" --version="$version" "${flags[@]}"
  elif [ "$slices" -eq 1 ]; then
    tpu queued-resources create "$name" --node-id="$name" --runtime-version="$version" "${flags[@]}"
  else
    tpu queued-resources create "$name" --node-count="$slices" --node-prefix="$name" --runtime-version="$version" "${flags[@]}"
  fi
}

remove() {
  if [ -n "$direct" ]; then
    try tpu tpu-vm delete "$name" --quiet
  else
    try tpu queued-resources delete "$name" --force --quiet
  fi
}

# Waits until the machine is ready: creates what is missing, replaces what was taken away.
created=''
ensure() {
  if [ -n "$DRY_RUN" ]; then
    request
    say "(waits until the machine is ready)"
    return
  fi
  local now said='' asked=0
  while :; do
    now=$(ask_status)
    case $now in
      READY) created=1; return ;;
      NONE)
        # It was there and somebody deleted it: that is an order, not an accident.
        [ -z "$created" ] || die "$name was deleted; nothing is started again"
        asked=$((asked + 1))
        [ "$asked" -le 3 ] || die "$name could not be created; see gcloud's message above"
        say "asking for $name ($type${spot:+, spot}, $slices slice(s)) in $zone"
        # A lost answer is not a lost machine: whatever gcloud says, look again.
        request || pause
        continue
        ;;
      PREEMPTED | FAILED)
        if [ "$now" = FAILED ] && [ -n "$created$said" ]; then
          tpu queued-resources describe "$name" || true
          die "the request for $name failed; see its state above, then: launch/tpu.sh delete --name $name --zone $zone"
        fi
        say "$name is $now; removing it and asking again"
        remove
        created=''
        ;;
      WAITING)
        [ -n "$said" ] || say "waiting for $name (this may take hours; Ctrl-C and come back as you like)"
        said=1
        pause
        ;;
    esac
  done
}

on_all() { # on_all COMMAND
  if [ "$slices" -eq 1 ]; then
    tpu tpu-vm ssh "$name" --worker=all --command="$1" </dev/null
  else
    tpu queued-resources ssh "$name" --node=all --worker=all --command="$1" </dev/null
  fi
}
on_first() {
  if [ "$slices" -eq 1 ]; then
    tpu tpu-vm ssh "$name" --worker=0 --command="$1" </dev/null
  else
    tpu queued-resources ssh "$name" --node=0 --worker=0 --command="$1" </dev/null
  fi
}
to_all() { # to_all FILE...
  if [ "$slices" -eq 1 ]; then
    tpu tpu-vm scp "$@" "$name:.electra_jax/" --worker=all
  else
    tpu queued-resources scp "$@" "$name:.electra_jax/" --node=all --worker=all
  fi
}

install() {
  local files=("$LAUNCH/host.sh") source=$from
  if [ "${from%.whl}" != "$from" ]; then
    files+=("$from")
    source=$(basename "$from")
  fi
  try on_all 'mkdir -p .electra_jax' || return 1
  try to_all "${files[@]}" || return 1
  try on_all "bash .electra_jax/host.sh install tpu,gcs $(printf '%q' "$source")"
}

# Prints the log as it grows; leaves the program's exit status, or "lost", in $ended.
ended=''
follow() {
  local line
  ended=lost
  while IFS= read -r line; do
    if [[ $line =~ ^\[exit\ ([0-9]+|lost|stopped)\]$ ]]; then ended=${BASH_REMATCH[1]}; else printf '%s\n' "$line"; fi
  done < <(on_first 'bash .electra_jax/host.sh follow' || true)
}

# Every host has to be free before the next start: one that is still ending would be passed over.
# One that failed by itself is why the first one ended: its status, and the end of its log, count.
settle() {
  local line
  while IFS= read -r line; do
    if [[ $line =~ ^\[exit\ ([0-9]+|lost)\]$ ]]; then
      case ${BASH_REMATCH[1]} in
        "$FINISHED" | "$PREEMPTED" | "$ABORTED" | lost) ;;
        *) ended=${BASH_REMATCH[1]} ;;
      esac
    else
      printf '%s\n' "$line"
    fi
  done < <(on_all 'bash .electra_jax/host.sh settle' || true)
}

# A machine that is taken away is often seen so only a moment after the program has died of it.
taken_away() {
  local attempt
  for attempt in 1 2 3; do
    [ "$(ask_status)" = READY ] || return 0
    [ -n "$spot" ] && [ "$attempt" -lt 3 ] || return 1
    sleep "$POLL"
  done
}

train() {
  local arguments began
  [ $# -gt 0 ] || die "what to train? Give the arguments of electra-jax pretrain after a --"
  printf -v arguments ' %q' "$@"
  while :; do
    ensure
    if ! install || ! try on_all "bash .electra_jax/host.sh start$arguments"; then
      if ! taken_away; then die "the hosts of $name cannot be reached or set up; see above"; fi
      again "$name was taken away while it was set up"
      continue
    fi
    if [ -n "$DRY_RUN" ]; then
      on_first 'bash .electra_jax/host.sh follow'
      say "(exit 75 or a machine taken away: all of this again; exit 0: done)"
      return
    fi
    began=$SECONDS
    follow
    case $ended in
      "$PREEMPTED" | "$ABORTED" | lost) settle ;;
    esac
    if [ "$ended" = "$ABORTED" ] && ! crashed $((SECONDS - began)); then
      again "aborted, as after the loss of another host"
      continue
    fi
    case $ended in
      "$FINISHED") say "finished; the machine still costs: launch/tpu.sh delete --name $name --zone $zone"; return ;;
      "$PREEMPTED")
        aborts=0
        again "stopped from outside, checkpoint saved"
        ;;
      stopped)
        say "stopped on request, checkpoint saved; the machine still costs: launch/tpu.sh delete --name $name --zone $zone"
        exit "$PREEMPTED"
        ;;
      lost) again "the connection was lost, or the machine" ;;
      *)
        if taken_away; then
          again "$name was taken away"
        else
          say "electra-jax pretrain failed (exit $ended); its log ends above. The machine still costs"
          exit "$ended"
        fi
        ;;
    esac
  done
}

check() {
  [ -n "$name" ] || die "--name is missing: how is the machine called, or to be called?"
  [ -n "$zone" ] || die "--zone is missing, e.g. --zone us-west4-a"
  [[ $slices =~ ^[1-9][0-9]*$ ]] || die "--slices $slices is not a count"
  [ "$slices" -eq 1 ] || [ -z "$direct" ] || die "several slices are only to be had through the queue: leave out --direct"
  need gcloud "see cloud.google.com/sdk/docs/install"
}
check_create() {
  [ -n "$type" ] || die "--type is missing, e.g. --type v5e-8"
  runtime_version >/dev/null
  case $slices,$type in
    1,*) ;;
    *,v[23]-*) die "--slices $slices of $type: slices of v2 and v3 cannot be joined; v4 and later can" ;;
  esac
  [ "${from%.whl}" = "$from" ] || [ -e "$from" ] || die "no wheel $from; make it with: python -m build --wheel"
}
check_workdir() {
  local workdir
  workdir=$(workdir_of "$@")
  [ -n "$workdir" ] || die "which run? Give -- --workdir gs://BUCKET/run"
  case $workdir in gs://*) return ;; esac
  if [ -n "$spot" ] || [ "$slices" -gt 1 ] || [ "${type##*-}" -gt 8 ]; then
    die "--workdir $workdir is on a disk that one host has and that vanishes with the machine; give gs://BUCKET/..."
  fi
}

# A mesh that electra-jax would refuse when the machine already costs.
check_mesh() {
  local fsdp data size
  [[ $type =~ -[1-9][0-9]*$ ]] || die "--type $type does not end in the size of a slice, as v5e-8 does"
  fsdp=$(argument --config.mesh.fsdp "$@") data=$(argument --config.mesh.data "$@") size=$(devices)
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

case $command in
  create) check; check_create; ensure; say "$name is ready; it costs until: launch/tpu.sh delete --name $name --zone $zone" ;;
  run | resume) check; check_create; check_workdir "$@"; check_mesh "$@"; train "$@" ;;
  logs) check; on_first 'bash .electra_jax/host.sh follow' ;;
  stop) check; try on_all 'bash .electra_jax/host.sh stop' ;;
  status) check; if [ -n "$DRY_RUN" ]; then tpu queued-resources describe "$name"; else ask_status; fi ;;
  delete)
    check
    if [ -z "$DRY_RUN" ] && [ "$(ask_status)" = NONE ]; then
      say "there is no $name in $zone (any more)"
    else
      remove || [ "$(ask_status)" = NONE ] || die "$name could not be deleted and still costs; see above, and try again"
      say "$name is deleted"
    fi
    ;;
  -h | --help | help) manual "$0" ;;
  *) die "unknown command $command; one of create, run, resume, logs, status, stop, delete" ;;
esac
