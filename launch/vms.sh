# shellcheck shell=bash disable=SC2034
# What tpu.sh and gce.sh share: from a machine to a finished run. They read it as their last line, after
# they have said how their cloud is asked:
#   status                  prints NONE, WAITING, READY, PREEMPTED or FAILED; fails when gcloud cannot tell. $created
#                           is not empty while a machine that was seen ready should be there
#   request, remove         asks for the machine; gives it back
#   explain                 why a request failed, if the cloud knows
#   on_all COMMAND, on_first COMMAND, to_all FILE...    run on every host or the first; copy to ~/.electra_jax of all
#   describe                what status asks first, for its dry run
#   check_machine, check_offer    refuse what this cloud does not have: always; before something is created
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

me=launch/$(basename "$0")
command=${1:---help}
[ $# -eq 0 ] || shift
name='' zone='' type='' slices=1 spot='' flex='' duration='' reserved='' reservation='' direct='' project='' runtime=''
from='' internal='' ssh_flags=() create_flags=()
while [ $# -gt 0 ]; do
  case $1 in --?*=*) set -- "${1%%=*}" "${1#*=}" "${@:2}" ;; esac
  case $1 in
    --name) value "$@"; name=$2; shift 2 ;;
    --zone) value "$@"; zone=$2; shift 2 ;;
    --type) value "$@"; type=$2; shift 2 ;;
    --slices) value "$@"; slices=$2; shift 2 ;;
    --spot) spot=--spot; shift ;;
    --flex-start) flex=--flex-start; shift ;;
    --max-run-duration) value "$@"; duration=$2; shift 2 ;;
    --reserved) reserved=--reserved; shift ;;
    --reservation) value "$@"; reservation=$2; shift 2 ;;
    --direct) direct=1; shift ;;
    --project) value "$@"; project=$2; shift 2 ;;
    --runtime) value "$@"; runtime=$2; shift 2 ;;
    --from) value "$@"; from=$2; shift 2 ;;
    --internal-ips) internal=1; shift ;;
    --tunnel-through-iap) ssh_flags+=("$1"); shift ;;
    --ssh-flag) flag_value "$@"; ssh_flags+=("$2"); shift 2 ;;
    --create-flag) flag_value "$@"; create_flags+=("$2"); shift 2 ;;
    --env) value "$@"; add_variable "$2"; shift 2 ;;
    --max-restarts) value "$@"; MAX_RESTARTS=$2; shift 2 ;;
    --dry-run) DRY_RUN=1; shift ;;
    --) shift; break ;;
    *) no_option "$1" ;;
  esac
done

# The project, for names that gcloud takes whole only.
project_id() {
  local found=$project
  if [ -z "$found" ] && [ -n "$DRY_RUN" ]; then found=PROJECT; fi
  [ -n "$found" ] || found=$(gcloud config get-value project 2>/dev/null) || true
  [ -n "$found" ] && [ "$found" != "(unset)" ] || die "which project? Give --project, or: gcloud config set project ..."
  printf '%s' "$found"
}

# A field of a resource by a command that describes it; NONE where there is no such resource. Fails when
# gcloud cannot tell; a zone or project that is not there will not be there on the next try either.
field() { # field COMMAND
  local out
  if out=$("$@" 2>&1); then
    printf '%s' "${out##*$'\n'}"
  elif grep -qE "Permission denied on 'locations/|Invalid value for field 'zone'|Unknown zone" <<<"$out"; then
    die "--zone $zone: gcloud knows no such zone with TPUs, or the project may not use it (${out##*$'\n'})"
  elif grep -qiE 'NOT_FOUND|not found' <<<"$out"; then
    printf 'NONE'
  else
    say "$out"
    return 1
  fi
}

# Patient: a question that fails is asked again.
ask_status() {
  local attempt code
  for attempt in 1 2 3; do
    code=0
    status || code=$?
    [ "$code" -ne 0 ] || return 0
    [ "$code" -ne 2 ] || exit 2
    [ "$attempt" -eq 3 ] || sleep "$POLL"
  done
  die "gcloud cannot say what became of $name; see the message above"
}

# Seconds of a duration as gcloud writes it: 90m, 4h, 1d12h.
seconds() {
  local text=$1 sum=0
  while [[ $text =~ ^([0-9]{1,6})([dhms])(.*)$ ]]; do
    case ${BASH_REMATCH[2]} in
      d) sum=$((sum + 10#${BASH_REMATCH[1]} * 86400)) ;;
      h) sum=$((sum + 10#${BASH_REMATCH[1]} * 3600)) ;;
      m) sum=$((sum + 10#${BASH_REMATCH[1]} * 60)) ;;
      s) sum=$((sum + 10#${BASH_REMATCH[1]})) ;;
    esac
    text=${BASH_REMATCH[3]}
  done
  [ -z "$text" ] && [ "$sum" -gt 0 ] && printf '%s' "$sum"
}

# Waits until the machine is ready: creates what is missing, replaces what was taken away.
created='' ready_at=0
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
      READY)
        [ -n "$created" ] || ready_at=$SECONDS
        created=1
        return
        ;;
      NONE)
        if [ -n "$created" ] && [ -n "$flex" ] && [ $((SECONDS - ready_at + 600)) -ge "$(seconds "$duration")" ]; then
          say "$name had its $duration; asking again"
          created=''
        fi
        # It was there and somebody deleted it: that is an order, not an accident.
        [ -z "$created" ] || die "$name was deleted; nothing is started again"
        asked=$((asked + 1))
        [ "$asked" -le 3 ] || die "$name could not be created; see gcloud's message above"
        say "asking for $name ($type${spot:+, spot}${flex:+, flex-start for $duration}, $slices slice(s)) in $zone"
        # A lost answer is not a lost machine: whatever gcloud says, look again. A request by flex-start that
        # ran out of time without a failure is one more wait in the queue.
        if ! request; then pause; elif [ -n "$flex" ]; then asked=0; pause; fi
        continue
        ;;
      PREEMPTED | FAILED)
        if [ "$now" = FAILED ] && [ -n "$created$said" ]; then
          explain
          die "the request for $name failed; see its state above, then: $me delete --name $name --zone $zone"
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

install() {
  local files=("$LAUNCH/host.sh") source=$from
  if [ "${from%.whl}" != "$from" ]; then
    files+=("$from")
    source=$(basename "$from")
  fi
  if [ ${#variables[@]} -gt 0 ]; then
    [ -n "$private" ] || variables_file '%s=%q'
    files+=("$private")
    say "the program is given: $(variable_names) (by a file; values are not shown)"
  fi
  try on_all 'mkdir -p .electra_jax && rm -f .electra_jax/environment' || return 1
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
    [ -n "$spot$flex" ] && [ "$attempt" -lt 3 ] || return 1
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
      "$FINISHED") say "finished; the machine still costs: $me delete --name $name --zone $zone"; return ;;
      "$PREEMPTED")
        aborts=0
        again "stopped from outside, checkpoint saved"
        ;;
      stopped)
        say "stopped on request, checkpoint saved; the machine still costs: $me delete --name $name --zone $zone"
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
  check_name "$name"
  check_zone "$zone"
  count --slices "$slices"
  check_restarts
  check_machine
  # Without an address in the world there are two ways to a host, and one of them needs a machine in the same network.
  if [ -n "$internal" ] && [ ${#ssh_flags[@]} -eq 0 ]; then ssh_flags=(--tunnel-through-iap); fi
  need gcloud "see cloud.google.com/sdk/docs/install"
}

check_create() {
  [ -n "$type" ] || die "--type is missing, e.g. --type v5e-8"
  check_kinds "$spot" "$flex" "$reserved" "${reservation:+--reservation}"
  if [ -n "$flex" ]; then
    duration=${duration:-7d}
    [[ $(seconds "$duration") =~ ^[0-9]+$ ]] || die "--max-run-duration $duration is not written as gcloud does, e.g. 4h, 90m or 2d12h"
    [ "$(seconds "$duration")" -le 604800 ] || die "--max-run-duration $duration: flex-start gives a machine for at most 7d"
  elif [ -n "$duration" ]; then
    die "--max-run-duration $duration goes with --flex-start"
  fi
  check_reservation "$reservation"
  check_offer
  [ "${from%.whl}" = "$from" ] || [ -e "$from" ] || die "no wheel $from; make it with: python -m build --wheel"
}
several_hosts() {
  local known hosts _
  if known=$(shape "$type"); then
    read -r _ _ _ hosts _ <<<"$known"
    [ "$((hosts * slices))" -gt 1 ]
  else
    [ "$((${type##*-} * slices))" -gt 8 ]
  fi
}
check_workdir() {
  local workdir
  workdir=$(workdir_of "$@")
  [ -n "$workdir" ] || die "which run? Give -- --workdir gs://BUCKET/run"
  case $workdir in gs://*) return ;; esac
  if [ -n "$spot$flex" ] || several_hosts; then
    die "--workdir $workdir is on a disk that one host has and that vanishes with the machine; give gs://BUCKET/..."
  fi
}

case $command in
  create)
    check
    check_create
    ensure
    [ -n "$DRY_RUN" ] || say "$name is ready; it costs until: $me delete --name $name --zone $zone"
    ;;
  run | resume) check; check_create; check_workdir "$@"; check_mesh "$type" "$slices" "$@"; inherit_variables; train "$@" ;;
  logs) check; on_first 'bash .electra_jax/host.sh follow' ;;
  stop) check; try on_all 'bash .electra_jax/host.sh stop' ;;
  status) check; if [ -n "$DRY_RUN" ]; then describe; else ask_status; fi ;;
  delete)
    check
    if [ -n "$DRY_RUN" ]; then
      remove
      say "(dry run: nothing is deleted; if $name is there, it still costs)"
      exit
    fi
    now=$(ask_status)
    if [ "$now" = NONE ]; then
      say "there is no $name in $zone (any more)"
    else
      remove || [ "$(ask_status)" = NONE ] || die "$name could not be deleted and still costs; see above, and try again"
      say "$name is deleted"
    fi
    ;;
  -h | --help | help) manual "$0" ;;
  *) die "unknown command $command; one of create, run, resume, logs, status, stop, delete" ;;
esac
