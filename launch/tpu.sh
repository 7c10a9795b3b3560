#!/usr/bin/env bash
# Trains on Cloud TPUs by the Cloud TPU API: one host, a slice of many hosts, several slices; on demand, spot,
# by flex-start or reserved. Google no longer develops that API and recommends Compute Engine (gce.sh) and GKE (gke.sh),
# which alone have TPU7x; v5e and v4 without Kubernetes are only to be had here.
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
# Options, before the "--"; --name VALUE may be written --name=VALUE:
#   --name NAME          of the machine (required)
#   --zone ZONE          required; where types are offered: cloud.google.com/tpu/docs/regions-zones
#   --type TYPE          v5e-8, v5e-16, v6e-8, v5p-8, v4-8, ... (required to create)
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
# How the machine is given, one of:
#   --spot               cheaper, and may be taken away at any time; training resumes by itself
#   --flex-start         cheaper, for at most a week, in a queue of its own; asked for again when its time is over.
#                        The API has it only in gcloud's alpha commands (as of November 2026), which are called
#   --max-run-duration D of flex-start: 4h, 2d, ... (default: 7d)
#   --reserved           from your reservations, whichever fits
#   --reservation NAME   from this one: a name or projects/P/locations/ZONE/reservations/NAME; gcloud alpha, too
#
# A machine without an address in the world, and what the program is told:
#   --internal-ips       no external addresses; the network needs Cloud NAT to install, Private Google Access for gs://
#   --tunnel-through-iap reach hosts through the Identity-Aware Proxy (implied by --internal-ips); with --direct
#                        by gcloud's alpha commands
#   --ssh-flag FLAG      another flag for gcloud's ssh and scp, e.g. --internal-ip from a machine in the network
#   --env NAME=VALUE     an environment variable of the program; --env NAME: with its value here. Without asking,
#                        these are passed on if they are set here: ELECTRA_JAX_CACHE, JAX_COMPILATION_CACHE_DIR,
#                        HF_* and WANDB_*, folders of the last two left out. By a file; values are never printed
#
# Several hosts, and spot machines, whose disks vanish, need a --workdir on a bucket.
# Ends with the status of electra-jax pretrain: 0 finished, else the failure, after the log's end.

tpu() { # tpu queued-resources|tpu-vm VERB ARGUMENTS
  run gcloud ${track:+"$track"} compute tpus "$@" --zone="$zone" ${project:+--project="$project"}
}
track='' # alpha, for requests that the other commands do not know

# gcloud's name of a type, and the software that machines of its generation run.
accelerator() {
  local known generation chips _
  case $type in
    *:*)
      known=$(shape "$type")
      read -r generation _ chips _ <<<"$known"
      case $generation in v4 | v5p) chips=$((2 * chips)) ;; esac
      known=$generation-$chips
      ;;
    *) known=$type ;;
  esac
  printf '%s' "${known/#v5e-/v5litepod-}"
}
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

nodes() {
  local i
  if [ "$slices" -eq 1 ]; then echo "$name"; return; fi
  for ((i = 0; i < slices; i++)); do echo "$name-$i"; done
}

status() {
  local state node
  if [ -z "$direct" ]; then
    state=$(field tpu queued-resources describe "$name" --format='value(state.state)') || return
    case $state in
      NONE) echo NONE; return ;;
      FAILED) echo FAILED; return ;;
      SUSPENDED) echo PREEMPTED; return ;;
      ACTIVE) ;;
      *) echo WAITING; return ;; # CREATING, ACCEPTED, WAITING_FOR_RESOURCES, PROVISIONING, SUSPENDING, DELETING
    esac
  fi
  for node in $(nodes); do
    state=$(field tpu tpu-vm describe "$node" --format='value(state)') || return
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
describe() { tpu queued-resources describe "$name"; }
explain() { describe || true; }

request() {
  local flags version track=$track place=$reservation
  version=$(runtime_version)
  case $type in
    v[45]*:*x*x*) flags=(--type="${type%:*}" --topology="${type#*:}") ;;
    *) flags=(--accelerator-type="$(accelerator)") ;;
  esac
  flags+=(${spot:+"$spot"} ${reserved:+"$reserved"} ${internal:+--internal-ips})
  if [ -n "$flex" ]; then
    track=alpha
    flags+=(--provisioning-model=flex-start --max-run-duration="$duration")
  fi
  if [ -n "$reservation" ]; then
    track=alpha
    case $place in */*) ;; *) place=projects/$(project_id)/locations/$zone/reservations/$place ;; esac
    flags+=(--reservation="$place")
  fi
  flags+=(${create_flags[@]+"${create_flags[@]}"}) # the + is for the bash of macOS
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

# A command on hosts. Those of a single machine are asked for by its own name, but the proxy is only known to the
# commands of queued resources, and to the alpha ones of machines that were not queued for.
to_hosts() { # to_hosts ssh|scp NODE WORKER ARGUMENTS
  local verb=$1 node=$2 worker=$3 kind=tpu-vm track=$track flags=()
  shift 3
  case " ${ssh_flags[*]-} " in
    *" --tunnel-through-iap "*) if [ -n "$direct" ]; then track=alpha; else kind=queued-resources; fi ;;
  esac
  if [ "$slices" -gt 1 ]; then kind=queued-resources; fi
  if [ "$kind" = queued-resources ]; then flags+=(--node="$node"); fi
  flags+=(--worker="$worker" ${ssh_flags[@]+"${ssh_flags[@]}"})
  tpu "$kind" "$verb" "$@" "${flags[@]}" </dev/null
}
on_all() { to_hosts ssh all all "$name" --command="$1"; }
on_first() { to_hosts ssh 0 0 "$name" --command="$1"; }
to_all() { to_hosts scp all all "$@" "$name:.electra_jax/"; }

check_machine() {
  [ "$slices" -eq 1 ] || [ -z "$direct" ] || die "several slices are only to be had through the queue: leave out --direct"
  [ -z "$flex$reservation" ] || [ -z "$direct" ] || die "${flex:---reservation} is only to be had through the queue: leave out --direct"
}
check_offer() {
  [[ $type =~ ^[a-z0-9]+(-[1-9][0-9]*|:[0-9x]+)$ ]] || die "--type $type does not end in the size of a slice, as v5e-8 does"
  case $type in
    tpu7x-* | tpu7x:*) die "--type $type: the Cloud TPU API has no TPU7x; use launch/gce.sh (one slice) or launch/gke.sh" ;;
    v[23]-*)
      [ "$slices" -eq 1 ] || die "--slices $slices of $type: slices of v2 and v3 cannot be joined; v4 and later can"
      ;;
    *) [ -n "$runtime" ] || shape "$type" >/dev/null || no_shape "$type" ;;
  esac
}

source "$(dirname "${BASH_SOURCE[0]}")/vms.sh"
