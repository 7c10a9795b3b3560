#!/usr/bin/env bash
# Trains on TPUs of a Google Kubernetes Engine (GKE) cluster, as a job; several slices as a JobSet.
#
#   launch/gke.sh create --cluster electra --region us-west4     # once: an Autopilot cluster
#   launch/gke.sh image --image us-west4-docker.pkg.dev/PROJECT/electra/electra:1     # once; optional
#   launch/gke.sh run --type v5e-8 --spot -- \
#     --config small --workdir gs://BUCKET/run --config.data.path=gs://BUCKET/data
#   launch/gke.sh resume --type v5e-8 --spot -- --workdir gs://BUCKET/run
#   launch/gke.sh logs
#   launch/gke.sh delete                                         # the job
#   launch/gke.sh delete --cluster electra --region us-west4     # and the cluster: costs end here
#
# run hands the job (gke.yaml) to the cluster and shows the log of its first host until it ends.
# Ctrl-C leaves the job alone; the same command shows it again. Kubernetes starts pods again that
# were taken away, and up to --max-restarts times for each host those that ended with 75 (stopped,
# checkpoint saved). After 134 (another host fell silent) the program starts again in its pod, three times
# in a row; any other failure ends the job.
#
# An Autopilot cluster finds its nodes itself. A Standard cluster needs a node pool for each slice:
#   launch/gke.sh pool --cluster C --region us-east5 --zone us-east5-a --type v5p-512 --slices 2
#   launch/gke.sh delete --pools --cluster C --region us-east5 --type v5p-512 --slices 2
#
# Options, before the "--"; --name VALUE may be written --name=VALUE:
#   --name NAME          of the job (default: electra)
#   --type TYPE          v5e-1 ... v5e-256, v6e-1 ... v6e-256, v4-8 ..., v5p-8 ... v5p-12288, tpu7x-8 ..., or a
#                        shape as electra-jax plan writes it: v5p:4x4x8, tpu7x:2x2x1
#   --slices N           several slices, one run (default: 1): needs JobSet in the cluster; logs and delete
#                        need the number, too
#   --spot               cheaper, and may be taken away at any time; training resumes by itself
#   --flex-start         cheaper, for at most a week, waits for capacity
#   --reservation NAME   from this reservation: a name or projects/P/reservations/NAME
#   --disk SIZE          local disk of a pod, on which data are staged (default: 40Gi). A Standard node's is
#                        about half of its boot disk, which pool makes three times as large as this
#   --env NAME=VALUE     an environment variable of the program; --env NAME: with its value here. Without asking,
#                        these are passed on if they are set here: ELECTRA_JAX_CACHE, JAX_COMPILATION_CACHE_DIR,
#                        HF_* and WANDB_*, folders of the last two left out. As a Kubernetes secret; never printed
#   --max-restarts N     of each host after 75 (default: 100)
#   --account NAME       Kubernetes service account with access to the bucket (default: default)
#   --image IMAGE        any with Python >= 3.11, pip and bash (default: python:3.12); with electra-jax in it,
#                        as image makes it (Dockerfile), nothing is installed when a pod starts
#   --package SPEC       what pip installs in it (default: electra_jax[tpu,gcs])
#   --from SOURCE        for image: a wheel, or what pip takes after "@" (default: the package index)
#   --pools              for delete: the node pools that pool made
#   --zone ZONE          for pool
#   --cluster NAME --region REGION --project PROJECT    for create, pool and delete
#   --dry-run            print what would be done, do nothing
#
# Ends with 0 when the run is finished, with 1 when the job failed, after the log's end.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

command=${1:---help}
[ $# -eq 0 ] || shift
name=electra type='' slices=1 spot='' flex='' reservation='' disk=40Gi account=default image='' package='' from=''
pools='' cluster='' region='' zone='' project=''
while [ $# -gt 0 ]; do
  case $1 in --?*=*) set -- "${1%%=*}" "${1#*=}" "${@:2}" ;; esac
  case $1 in
    --name) value "$@"; name=$2; shift 2 ;;
    --type) value "$@"; type=$2; shift 2 ;;
    --slices) value "$@"; slices=$2; shift 2 ;;
    --spot) spot=--spot; shift ;;
    --flex-start) flex=--flex-start; shift ;;
    --reservation) value "$@"; reservation=$2; shift 2 ;;
    --disk) value "$@"; disk=$2; shift 2 ;;
    --env) value "$@"; add_variable "$2"; shift 2 ;;
    --max-restarts) value "$@"; MAX_RESTARTS=$2; shift 2 ;;
    --account) value "$@"; account=$2; shift 2 ;;
    --image) value "$@"; image=$2; shift 2 ;;
    --package) value "$@"; package=$2; shift 2 ;;
    --from) value "$@"; from=$2; shift 2 ;;
    --pools) pools=1; shift ;;
    --cluster) value "$@"; cluster=$2; shift 2 ;;
    --region) value "$@"; region=$2; shift 2 ;;
    --zone) value "$@"; zone=$2; shift 2 ;;
    --project) value "$@"; project=$2; shift 2 ;;
    --dry-run) DRY_RUN=1; shift ;;
    --) shift; break ;;
    *) no_option "$1" ;;
  esac
done
package=${package:-electra_jax[tpu,gcs]}
variables_of=$name-environment # the secret that holds them
jobset=jobset
if [ "$slices" = 1 ]; then jobset=job; fi # a job, or a set of them

# What the type is made of: GKE's name of the generation, shape, hosts, chips of a host, machine type.
generation='' accelerator='' topology='' hosts='' chips='' machine=''
check_type() {
  local known _
  [ -n "$type" ] || die "--type is missing, e.g. --type v5e-8"
  known=$(shape "$type") || no_shape "$type"
  read -r generation topology _ hosts chips <<<"$known"
  case $generation in
    v5e) accelerator=tpu-v5-lite-podslice machine=ct5lp-hightpu-${chips}t ;;
    v6e) accelerator=tpu-v6e-slice machine=ct6e-standard-${chips}t ;;
    v4) accelerator=tpu-v4-podslice machine=ct4p-hightpu-${chips}t ;;
    v5p) accelerator=tpu-v5p-slice machine=ct5p-hightpu-${chips}t ;;
    tpu7x) accelerator=tpu7x machine=tpu7x-standard-${chips}t ;;
  esac
  if [ "$slices" -gt 1 ] && [ "$hosts" -eq 1 ]; then
    die "--slices $slices of $type: GKE joins slices of several hosts only; $type has one"
  fi
}
check() {
  check_name "$name"
  count --slices "$slices"
  check_restarts
  [[ $disk =~ ^[1-9][0-9]{0,5}[MGT]i$ ]] || die "--disk $disk is not a size as Kubernetes writes it, e.g. 40Gi or 1Ti"
  check_kinds "$spot" "$flex" "${reservation:+--reservation}"
  check_reservation "$reservation"
}

# A string as YAML and JSON write it.
quoted() {
  local text=${1//\\/\\\\}
  printf '"%s"' "${text//\"/\\\"}"
}

# What a pod runs: installs what its image lacks, then trains. A lost peer is waited for here, where the
# package and the staged data are; a program that aborts at every start ends the pod by the fourth time.
in_pod() {
  local code child began stopped attempt
  command -v electra-jax >/dev/null ||
    for attempt in 1 2 3; do
      pip install --quiet "$0" && break
      [ "$attempt" -eq 3 ] || sleep 10
    done
  while :; do
    began=$SECONDS
    attended electra-jax pretrain "$@"
    [ "$code" -eq 134 ] && [ -z "$stopped" ] || exit "$code"
    crashed $((SECONDS - began)) && exit "$code"
    echo "aborted, as after the loss of another host; starting again in this pod" >&2
  done
}

indented() { sed "s/^./$1&/"; } # indented SPACES
selectors() {
  local margin='        cloud.google.com/'
  if [ -n "$spot" ]; then printf '%sgke-spot: "true"\n' "$margin"; fi
  if [ -n "$flex" ]; then printf '%sgke-flex-start: "true"\n' "$margin"; fi
  if [ -n "$reservation" ]; then
    printf '%s%s\n' "$margin" "reservation-name: ${reservation##*/}" "$margin" 'reservation-affinity: "specific"'
    case $reservation in
      */*)
        text=${reservation#projects/}
        printf '%s%s\n' "$margin" "reservation-project: ${text%%/*}"
        ;;
    esac
  fi
}
# Puts a text in the place of a word, or, if it is empty, removes the word's line.
fill() { # fill WORD TEXT
  if [ -n "$2" ]; then text=${text//"@$1@"/"$2"}; else text=${text//"@$1@"$'\n'/}; fi
}

manifest() {
  local text list='' argument program environment='' job
  # A pod that comes back waits for those that do not have a node yet, instead of failing the job.
  if [ $((hosts * slices)) -gt 1 ] && [[ " $* " != *" --join-timeout"* ]]; then set -- "$@" --join-timeout 7200; fi
  for argument in "$@"; do list+="            - $(quoted "$argument")"$'\n'; done
  program=$(printf 'aborts=0\n%s\nin_pod "$@"\n' "$(declare -f attended crashed in_pod)" | indented '              ')
  if [ ${#variables[@]} -gt 0 ]; then
    environment="          envFrom:"$'\n'"            - secretRef: { name: $variables_of }"
  fi
  text=$(<"$LAUNCH/gke.yaml")
  fill NAME "$name"
  fill TYPE "$type"
  fill HOSTS "$hosts"
  fill CHIPS "$chips"
  fill RESTARTS "$((MAX_RESTARTS * hosts))"
  fill ACCELERATOR "$accelerator"
  fill TOPOLOGY "$topology"
  fill ACCOUNT "$account"
  fill IMAGE "${image:-python:3.12}"
  fill DISK "$disk"
  fill SELECTORS "$(selectors)"
  fill ENVIRONMENT "$environment"
  fill PACKAGE "$(quoted "$package")"
  fill PROGRAM "$program"
  fill ARGUMENTS "${list%$'\n'}"
  if [ "$slices" -gt 1 ]; then
    job=${text##*$'\n'spec:$'\n'}
    job=${job/"      subdomain: $name"$'\n'/} # the set has one of its own
    job=$(indented '        ' <<<"$job")
    text=$(<"$LAUNCH/gke-slices.yaml")
    fill NAME "$name"
    fill SLICES "$slices"
    fill JOB "$job"
  fi
  printf '%s\n' "$text"
}

# NONE, RUNNING, COMPLETE or FAILED.
status() {
  local out
  if out=$(kubectl get "$jobset" "$name" --output='jsonpath={.status.conditions[?(@.status=="True")].type}' 2>&1); then
    case " $out " in
      *" Complete "* | *" Completed "*) echo COMPLETE ;;
      *" Failed "*) echo FAILED ;;
      *) echo RUNNING ;;
    esac
  elif grep -qiE 'NotFound|not found' <<<"$out"; then
    echo NONE
  else
    say "$out"
    return 1
  fi
}
ask_status() {
  local attempt
  for attempt in 1 2 3; do
    if status; then return; fi
    [ "$attempt" -eq 3 ] || sleep "$POLL"
  done
  die "kubectl cannot say what became of $jobset $name; see the message above"
}

remove() {
  local kinds=job,service
  [ "$slices" -eq 1 ] || kinds=jobset
  try run kubectl delete "$kinds" "$name" --ignore-not-found --wait
  try run kubectl delete secret "$variables_of" --ignore-not-found
}

# A set of jobs needs its controller in the cluster.
check_jobset() {
  local out
  [ "$slices" -gt 1 ] && [ -z "$DRY_RUN" ] || return 0
  if out=$(kubectl get crd jobsets.jobset.x-k8s.io 2>&1); then return; fi
  if grep -qiE 'NotFound|not found' <<<"$out"; then
    die "--slices $slices needs JobSet, which this cluster does not have: jobset.sigs.k8s.io/docs/installation"
  fi
  die "the cluster does not answer: ${out##*$'\n'}"
}

# The variables of the program as a secret: made anew, since they may have changed.
give_variables() {
  [ ${#variables[@]} -gt 0 ] || return 0
  variables_file '%s=%s'
  try run kubectl delete secret "$variables_of" --ignore-not-found
  try once run kubectl create secret generic "$variables_of" --from-env-file="$private" ||
    die "the cluster does not take the variables of the program; see above"
  say "the program is given: $(variable_names) (as secret $variables_of; values are not shown)"
}

apply() {
  local text
  text=$(manifest "$@")
  give_variables
  if [ -n "$DRY_RUN" ]; then
    printf '%s\n' "+ kubectl apply --filename=- <<'MANIFEST'" "$text" MANIFEST
    return
  fi
  local attempt
  for attempt in 1 2 3; do
    if kubectl apply --filename=- <<<"$text"; then return; fi
    [ "$attempt" -eq 3 ] || pause
  done
  die "the cluster does not take the job; see above (is kubectl set up? launch/gke.sh create)"
}

# The pods of the first host.
first_host() {
  local of="job-name=$name"
  [ "$slices" -eq 1 ] || of="jobset.sigs.k8s.io/jobset-name=$name,jobset.sigs.k8s.io/job-index=0"
  printf '%s' "$of,batch.kubernetes.io/job-completion-index=0"
}

# The log of the first host, from pod to pod, until the job has ended.
follow() {
  local logs=(kubectl logs --follow --tail=-1 --container=pretrain --selector="$(first_host)")
  if [ -n "$DRY_RUN" ]; then run "${logs[@]}"; return; fi
  while [ "$(ask_status)" = RUNNING ]; do
    "${logs[@]}" 2>/dev/null || true # no pod yet, or it was taken away: look again
    sleep "$POLL"
  done
}

train() {
  check
  check_type
  case $(workdir_of "$@") in
    gs://*) ;;
    *) die "a pod's disk vanishes with it; give -- --workdir gs://BUCKET/run" ;;
  esac
  check_mesh "$type" "$slices" "$@"
  need kubectl "see kubernetes.io/docs/tasks/tools"
  inherit_variables
  if [ -n "$DRY_RUN" ]; then
    apply "$@"
    follow
    return
  fi
  check_jobset
  now=$(ask_status)
  case $now in
    NONE) apply "$@" ;;
    RUNNING) say "job $name runs already; showing its log" ;;
    *)
      say "an earlier job named $name has ended; it makes room for the new one"
      remove
      apply "$@"
      ;;
  esac
  follow
  case $(ask_status) in
    COMPLETE) say "finished" ;;
    NONE) die "job $name was deleted; nothing is started again" ;;
    *)
      kubectl logs --tail=50 --container=pretrain --selector="$(first_host)" || true
      kubectl describe "$jobset" "$name" || true
      say "job $name failed; the end of its log and the reason stand above"
      exit 1
      ;;
  esac
}

cloud() { run gcloud container "$@" --region="$region" ${project:+--project="$project"}; }
there() { cloud clusters describe "$cluster" --format='value(status)' >/dev/null 2>&1; }
check_cluster() {
  [ -n "$cluster" ] && [ -n "$region" ] || die "which cluster? Give --cluster NAME --region REGION"
  [[ $region =~ ^[a-z]+-[a-z]+[0-9]+(-[a-z])?$ ]] || die "--region $region is not written as regions are, e.g. us-west4"
  need gcloud "see cloud.google.com/sdk/docs/install"
}

# Names of the node pools of a Standard cluster, one a slice.
pool_names() {
  local i
  if [ "$slices" -eq 1 ]; then echo "$name"; return; fi
  for ((i = 0; i < slices; i++)); do echo "$name-$i"; done
}
make_pools() {
  local pool gigabytes flags=() policy=()
  gigabytes=$((3 * ${disk%?i}))
  case $disk in
    *Ti) gigabytes=$((gigabytes * 1024)) ;;
    *Mi) gigabytes=100 ;;
  esac
  if [ "$gigabytes" -lt 100 ]; then gigabytes=100; fi
  if [ "$hosts" -gt 1 ] && [ "$generation" = tpu7x ]; then
    # The shape of its slices is a policy, not a flag.
    policy=(gcloud compute resource-policies create workload-policy "$name" --region="${zone%-*}"
      --type=HIGH_THROUGHPUT --accelerator-topology="$topology" ${project:+--project="$project"})
    once run "${policy[@]}" || die "the shape $topology could not be asked for; see above"
    flags+=(--placement-policy="$name")
  elif [ "$hosts" -gt 1 ]; then
    flags+=(--tpu-topology="$topology")
  fi
  if [ -n "$flex" ]; then
    flags+=(--flex-start --num-nodes=0 --enable-autoscaling --min-nodes=0 --max-nodes="$hosts" --reservation-affinity=none)
  else
    flags+=(--num-nodes="$hosts" ${spot:+"$spot"})
  fi
  if [ -n "$reservation" ]; then flags+=(--reservation-affinity=specific --reservation="$reservation"); fi
  for pool in $(pool_names); do
    once cloud node-pools create "$pool" --cluster="$cluster" --node-locations="$zone" --machine-type="$machine" \
      --disk-size="$gigabytes" "${flags[@]}" || die "node pool $pool could not be made; see above"
  done
  [ -n "$DRY_RUN" ] || say "$slices node pool(s) of $type; they cost until: launch/gke.sh delete --pools --cluster $cluster --region $region --name $name --type $type --slices $slices"
}
delete_pools() {
  local pool
  for pool in $(pool_names); do
    try gone cloud node-pools delete "$pool" --cluster="$cluster" --quiet ||
      die "node pool $pool could not be deleted and still costs; see above, and try again"
  done
  if [ "$hosts" -gt 1 ] && [ "$generation" = tpu7x ]; then
    try gone run gcloud compute resource-policies delete "$name" --region="${region%-[a-z]}" --quiet ${project:+--project="$project"}
  fi
}

# An image with the package in it (Dockerfile), built here and pushed to where the cluster finds it.
make_image() {
  local folder=$LAUNCH spec=$package
  [ -n "$image" ] || die "which image? Give --image REGION-docker.pkg.dev/PROJECT/REPOSITORY/NAME:TAG"
  need docker "see docs.docker.com/get-started/get-docker"
  case $from in
    '') ;;
    *.whl)
      [ -e "$from" ] || die "no wheel $from; make it with: python -m build --wheel"
      folder=$(dirname "$from") spec="$package @ file:///package/$(basename "$from")"
      ;;
    *) spec="$package @ $from" ;;
  esac
  run docker build --platform=linux/amd64 --file="$LAUNCH/Dockerfile" --build-arg="PACKAGE=$spec" --tag="$image" "$folder" ||
    die "the image could not be built; see above"
  try run docker push "$image" || die "the image could not be pushed; see above (gcloud auth configure-docker?)"
}

case $command in
  create)
    check_cluster
    if [ -z "$DRY_RUN" ] && there; then
      say "cluster $cluster is there"
    else
      cloud clusters create-auto "$cluster" || there || die "cluster $cluster could not be created; see above"
    fi
    try cloud clusters get-credentials "$cluster"
    ;;
  pool) check; check_type; check_cluster; check_zone "$zone"; make_pools ;;
  image) make_image ;;
  run | resume) train "$@" ;;
  logs) check; need kubectl "see kubernetes.io/docs/tasks/tools"; follow ;;
  delete)
    check
    if [ -n "$pools" ]; then
      check_type
      check_cluster
      delete_pools
    else
      need kubectl "see kubernetes.io/docs/tasks/tools"
      [ -z "$cluster$region" ] || check_cluster
      remove
      if [ -n "$cluster" ]; then
        if [ -n "$DRY_RUN" ] || there; then
          try cloud clusters delete "$cluster" --quiet
        else
          say "there is no cluster $cluster (any more)"
        fi
      fi
    fi
    [ -z "$DRY_RUN" ] || say "(dry run: nothing is deleted; what is there still costs)"
    ;;
  -h | --help | help) manual "$0" ;;
  *) die "unknown command $command; one of create, image, pool, run, resume, logs, delete" ;;
esac
