#!/usr/bin/env bash
# Trains on Cloud TPUs as virtual machines of Compute Engine, the way that Google recommends (as of November 2026)
# and the one beside GKE that has TPU7x: one host, or a slice of many hosts; on demand, spot, by flex-start or reserved.
#
#   launch/gce.sh run --name electra --zone us-east5-a --type v6e-8 --spot -- \
#     --config small --workdir gs://BUCKET/run --config.data.path=gs://BUCKET/data
#
# That one command asks for the machine, waits for it, installs the package on every host, starts
# training, shows its log, and does all of it again whenever the machine is taken away, until the
# run is finished. Close the terminal whenever you like: training goes on, and the same command
# shows it again. Only the automatic restart needs this script to be running.
#
# One host is an instance. A slice of several is a workload policy (its shape), an instance template and a managed
# instance group, all of the given name; delete removes the three.
#
#   create    only the machine (waits until it is ready)
#   run       everything above; what exists is used, what runs is left running
#   resume    the same for a run that has begun: -- --workdir gs://BUCKET/run is enough
#   logs      the log of what runs there
#   status    NONE, WAITING, READY, PREEMPTED or FAILED
#   stop      save a checkpoint and end training; the machine stays (and costs)
#   delete    the machine; your bucket is not touched. Costs end here and nowhere else
# logs, stop, status and delete need the --type, too, to know whether it is one host or several.
#
# Options, before the "--"; --name VALUE may be written --name=VALUE:
#   --name NAME          of the machine (required)
#   --zone ZONE          required; where types are offered: cloud.google.com/tpu/docs/regions-zones
#   --type TYPE          required: v6e-1, -4, -8, -16, ...; v5p-8, -16, ...; tpu7x-8, ...; or a shape: tpu7x:2x2x1
#   --project PROJECT    default: that of gcloud config
#   --runtime FAMILY     family of the machine's image (default: by type)
#   --from SOURCE        a wheel, or what pip takes after "@" (default: the package index)
#   --create-flag FLAG   one more flag for gcloud's create, e.g. --network=NAME; may be repeated
#   --max-restarts N     after preemptions and lost hosts (default: 100)
#   --dry-run            print what would be done, do nothing
#
# How the machine is given, one of:
#   --spot               cheaper, and may be taken away at any time; training resumes by itself
#   --flex-start         cheaper, for at most a week, waits for capacity; asked for again when its time is over
#   --max-run-duration D of flex-start: 4h, 2d, ... (default: 7d)
#   --reservation NAME   from this reservation: a name or projects/P/reservations/NAME
#
# A machine without an address in the world, and what the program is told:
#   --internal-ips       no external addresses; the network needs Cloud NAT to install, Private Google Access for gs://
#   --tunnel-through-iap reach hosts through the Identity-Aware Proxy (implied by --internal-ips)
#   --ssh-flag FLAG      another flag for gcloud's ssh and scp, e.g. --internal-ip from a machine in the network
#   --env NAME=VALUE     an environment variable of the program; --env NAME: with its value here. Without asking,
#                        these are passed on if they are set here: ELECTRA_JAX_CACHE, JAX_COMPILATION_CACHE_DIR,
#                        HF_* and WANDB_*, folders of the last two left out. By a file; values are never printed
#
# Not here: several slices (--slices) and the queue of the Cloud TPU API (--direct, --reserved): tpu.sh, gke.sh.
# Several hosts, and spot machines, whose disks vanish, need a --workdir on a bucket.
# Ends with the status of electra-jax pretrain: 0 finished, else the failure, after the log's end.

compute() { run gcloud compute "$@" ${project:+--project="$project"}; } # compute GROUP VERB ARGUMENTS
zonal() { compute "$@" --zone="$zone"; }
group() { zonal instance-groups managed "$@"; } # group VERB ARGUMENTS: of a slice of several hosts
region() { printf '%s' "${zone%-*}"; }

# What a slice is made of, from its type; set by check_machine.
topology='' host_count=1 machine='' image=''
several() { [ "$host_count" -gt 1 ]; }

status() {
  local state states listed=0 running=0
  if ! several; then
    state=$(field zonal instances describe "$name" --format='value(status)') || return
    word "$state"
    return
  fi
  state=$(field group describe "$name" --format='value(targetSize)') || return
  # A group that was not told its size is a request that did not get to its end: it is given again.
  case $state in NONE | 0) echo NONE; return ;; esac
  states=$(group list-instances "$name" --format='value(instanceStatus)') || return
  for state in $states; do
    listed=$((listed + 1))
    case $(word "$state") in
      READY) running=$((running + 1)) ;;
      PREEMPTED) echo PREEMPTED; return ;;
    esac
  done
  if [ "$running" -eq "$host_count" ]; then
    echo READY
  elif [ -n "$created" ] && [ "$listed" -lt "$host_count" ]; then
    echo PREEMPTED # a host that was there has vanished, as those of flex-start do when their time is over
  else
    echo WAITING
  fi
}
word() { # word STATE-OF-AN-INSTANCE
  case $1 in
    NONE) echo NONE ;;
    RUNNING) echo READY ;;
    TERMINATED | STOPPED | SUSPENDED) echo PREEMPTED ;;
    *) echo WAITING ;; # PENDING, PROVISIONING, STAGING, STOPPING, REPAIRING
  esac
}
describe() { if several; then group describe "$name"; else zonal instances describe "$name"; fi; }
explain() { describe || true; }

# Flags of an instance and of a template alike. TPUs cannot move to another host: hence the maintenance policy.
machine_flags() {
  flags=(--machine-type="$machine" --image-family="$image" --image-project=ubuntu-os-accelerator-images
    --maintenance-policy=TERMINATE --boot-disk-size=200GB --scopes=cloud-platform ${internal:+--no-address})
  if [ -n "$spot" ]; then flags+=(--provisioning-model=SPOT --instance-termination-action=STOP); fi
  if [ -n "$flex" ]; then
    flags+=(--provisioning-model=FLEX_START --max-run-duration="$duration" --instance-termination-action=DELETE)
  fi
  if [ -n "$reservation" ]; then
    flags+=(--provisioning-model=RESERVATION_BOUND --reservation-affinity=specific --reservation="$reservation")
  fi
  flags+=(${create_flags[@]+"${create_flags[@]}"})
}

request() {
  local flags place
  machine_flags
  if ! several; then
    if [ -n "$flex" ]; then flags+=(--request-valid-for-duration=2h); fi
    zonal instances create "$name" "${flags[@]}"
    return
  fi
  # Gcloud takes the policy and the template of a group by their whole names only.
  place=projects/$(project_id)/regions/$(region)
  once compute resource-policies create workload-policy "$name" --region="$(region)" --type=HIGH_THROUGHPUT \
    --accelerator-topology="$topology" --accelerator-topology-mode=AUTO_CONNECT &&
    once compute instance-templates create "$name" --instance-template-region="$(region)" "${flags[@]}" &&
    once group create "$name" --size=0 --template="$place/instanceTemplates/$name" \
      --workload-policy="$place/resourcePolicies/$name" --target-size-policy-mode=bulk \
      --default-action-on-vm-failure=do-nothing &&
    group resize "$name" --size="$host_count"
}

remove() {
  if ! several; then try zonal instances delete "$name" --quiet; return; fi
  try gone group delete "$name" --quiet &&
    try gone compute instance-templates delete "$name" --region="$(region)" --quiet &&
    try gone compute resource-policies delete "$name" --region="$(region)" --quiet
}

hosts() {
  if ! several; then echo "$name"; return; fi
  if [ -n "$DRY_RUN" ]; then echo "$name-HOST"; return; fi # each that the group lists
  group list-instances "$name" --format='value(instance.basename())'
}
on_host() { zonal ssh "$1" --command="$2" ${ssh_flags[@]+"${ssh_flags[@]}"} </dev/null; }
to_host() { # to_host HOST FILE...
  local host=$1
  shift
  zonal scp "$@" "$host:.electra_jax/" ${ssh_flags[@]+"${ssh_flags[@]}"} </dev/null
}
# On all hosts at once; the status of one that failed.
each() { # each FUNCTION ARGUMENTS: FUNCTION HOST ARGUMENTS
  local list host code=0 running=() one=$1
  shift
  list=$(hosts) && [ -n "$list" ] || return 1
  for host in $list; do
    "$one" "$host" "$@" &
    running+=($!)
  done
  for host in "${running[@]}"; do wait "$host" || code=$?; done
  return "$code"
}
on_all() { each on_host "$1"; }
to_all() { each to_host "$@"; }
# The host of process 0, by the metadata from which JAX takes it, too.
on_first() {
  local list found=''
  list=$(hosts) && [ -n "$list" ] || return 1
  if several && [ -z "$DRY_RUN" ]; then
    found=$(on_host "${list%%$'\n'*}" 'bash .electra_jax/host.sh first') || true
    found=${found##*$'\n'}
  fi
  grep -qxF -- "$found" <<<"$list" || found=${list%%$'\n'*}
  on_host "$found" "$1"
}

check_machine() {
  local known generation chips size
  [ "$slices" -eq 1 ] || die "--slices $slices: on Compute Engine this script starts one slice; several: launch/gke.sh or launch/tpu.sh"
  [ -z "$direct$reserved" ] || die "--direct and --reserved are for launch/tpu.sh; here a machine is never queued for, and a reservation has a name: --reservation"
  [ -n "$type" ] || die "--type is missing, e.g. --type v6e-8"
  known=$(shape "$type") || no_shape "$type"
  read -r generation topology chips host_count size <<<"$known"
  image=${runtime:-ubuntu-accel-2204-amd64-tpu-v5e-v5p-v6e}
  case $generation in
    v6e) machine=ct6e-standard-${size}t ;;
    v5p) machine=ct5p-hightpu-${size}t ;;
    tpu7x) machine=tpu7x-standard-${size}t image=${runtime:-ubuntu-accel-2404-amd64-tpu-tpu7x} ;;
    *) die "--type $type: Compute Engine offers v5p, v6e and tpu7x (as of November 2026); $generation: launch/tpu.sh or launch/gke.sh" ;;
  esac
}
check_offer() { :; }

source "$(dirname "${BASH_SOURCE[0]}")/vms.sh"
