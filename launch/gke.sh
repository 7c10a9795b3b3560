#!/usr/bin/env bash
# Trains on TPUs of a Google Kubernetes Engine (GKE) cluster, as a job.
#
#   launch/gke.sh create --cluster electra --region us-west4     # once: an Autopilot cluster
#   launch/gke.sh run --type v5e-8 --spot -- \
#     --config small --workdir gs://BUCKET/run --config.data.path=gs://BUCKET/data
#   launch/gke.sh resume --type v5e-8 --spot -- --workdir gs://BUCKET/run
#   launch/gke.sh logs
#   launch/gke.sh delete                                         # the job
#   launch/gke.sh delete --cluster electra --region us-west4     # and the cluster: costs end here
#
# run hands the job (gke.yaml) to the cluster and shows the log of its first host until it ends.
# Ctrl-C leaves the job alone; the same command shows it again. Kubernetes starts pods again that
# were taken away, that ended with 75 (stopped, checkpoint saved), and up to three times for each host
# those that ended with 134 (another host fell silent); any other failure ends the job.
#
# Options, before the "--":
#   --name NAME          of the job (default: electra)
#   --type TYPE          v5e-1 ... v5e-256, v6e-1 ... v6e-256, v4-8 ... v4-128, v5p-8 ... v5p-128
#   --spot               cheaper, and may be taken away at any time; training resumes by itself
#   --account NAME       Kubernetes service account with access to the bucket (default: default)
#   --image IMAGE        any with Python >= 3.11, pip and bash (default: python:3.12)
#   --package SPEC       what pip installs in it (default: electra_jax[tpu,gcs])
#   --cluster NAME --region REGION --project PROJECT    for create and delete
#   --dry-run            print what would be done, do nothing
#
# Ends with 0 when the run is finished, with 1 when the job failed, after the log's end.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

command=${1:---help}
[ $# -eq 0 ] || shift
name=electra type='' spot='' account=default image=python:3.12 package='electra_jax[tpu,gcs]' cluster='' region='' project=''
while [ $# -gt 0 ]; do
  case $1 in
    --name) value "$@"; name=$2; shift 2 ;;
    --type) value "$@"; type=$2; shift 2 ;;
    --spot) spot=1; shift ;;
    --account) value "$@"; account=$2; shift 2 ;;
    --image) value "$@"; image=$2; shift 2 ;;
    --package) value "$@"; package=$2; shift 2 ;;
    --cluster) value "$@"; cluster=$2; shift 2 ;;
    --region) value "$@"; region=$2; shift 2 ;;
    --project) value "$@"; project=$2; shift 2 ;;
    --dry-run) DRY_RUN=1; shift ;;
    --) shift; break ;;
    *) die "unknown option $1 (arguments of electra-jax pretrain follow a --)" ;;
  esac
done

# GKE's name of the generation, the shape of the slice, its hosts, and the chips of a host.
slice() {
  case $1 in
    v5e-*) printf 'tpu-v5-lite-podslice ' ;;
    v6e-*) printf 'tpu-v6e-slice ' ;;
    v4-*) printf 'tpu-v4-podslice ' ;;
    v5p-*) printf 'tpu-v5p-slice ' ;;
  esac
  case $1 in
    v5e-1 | v6e-1) echo 1x1 1 1 ;;
    v5e-4 | v6e-4) echo 2x2 1 4 ;;
    v5e-8 | v6e-8) echo 2x4 1 8 ;;
    v5e-16 | v6e-16) echo 4x4 4 4 ;;
    v5e-32 | v6e-32) echo 4x8 8 4 ;;
    v5e-64 | v6e-64) echo 8x8 16 4 ;;
    v5e-128 | v6e-128) echo 8x16 32 4 ;;
    v5e-256 | v6e-256) echo 16x16 64 4 ;;
    v4-8 | v5p-8) echo 2x2x1 1 4 ;;
    v4-16 | v5p-16) echo 2x2x2 2 4 ;;
    v4-32 | v5p-32) echo 2x2x4 4 4 ;;
    v4-64 | v5p-64) echo 2x4x4 8 4 ;;
    v4-128 | v5p-128) echo 4x4x4 16 4 ;;
    *) return 1 ;;
  esac
}

# A string as YAML and JSON write it.
quoted() {
  local text=${1//\\/\\\\}
  printf '"%s"' "${text//\"/\\\"}"
}

manifest() {
  local shape accelerator topology hosts chips text list='' argument
  shape=$(slice "$type") || die "--type '$type' is unknown; one of v5e-1, -4, -8, -16, -32, -64, -128, -256, the same of v6e, v4-8, -16, -32, -64, -128, the same of v5p"
  read -r accelerator topology hosts chips <<<"$shape"
  # A pod that comes back waits for those that do not have a node yet, instead of failing the job.
  if [ "$hosts" -gt 1 ] && [[ " $* " != *" --join-timeout"* ]]; then set -- "$@" --join-timeout 7200; fi
  for argument in "$@"; do list+="            - $(quoted "$argument")"$'\n'; done
  text=$(<"$LAUNCH/gke.yaml")
  text=${text//@NAME@/$name}
  text=${text//@TYPE@/$type}
  text=${text//@HOSTS@/$hosts}
  text=${text//@CHIPS@/$chips}
  text=${text//@ABORTS@/$((3 * hosts))}
  text=${text//@ACCELERATOR@/$accelerator}
  text=${text//@TOPOLOGY@/$topology}
  text=${text//@ACCOUNT@/$account}
  text=${text//@IMAGE@/$image}
  if [ -n "$spot" ]; then
    text=${text//@SPOT@/'        cloud.google.com/gke-spot: "true"'}
  else
    text=${text//@SPOT@$'\n'/}
  fi
  text=${text//@PACKAGE@/$(quoted "$package")}
  printf '%s\n' "${text//@ARGUMENTS@/${list%$'\n'}}"
}

# NONE, RUNNING, COMPLETE or FAILED.
status() {
  local out
  if out=$(kubectl get job "$name" --output='jsonpath={.status.conditions[?(@.status=="True")].type}' 2>&1); then
    case " $out " in
      *" Complete "*) echo COMPLETE ;;
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
  die "kubectl cannot say what became of job $name; see the message above"
}

remove() {
  try run kubectl delete job,service "$name" --ignore-not-found --wait
}

apply() {
  local text
  text=$(manifest "$@")
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

# The log of the first host, from pod to pod, until the job has ended.
follow() {
  local logs=(kubectl logs --follow --tail=-1 --selector="job-name=$name,batch.kubernetes.io/job-completion-index=0")
  if [ -n "$DRY_RUN" ]; then run "${logs[@]}"; return; fi
  while [ "$(ask_status)" = RUNNING ]; do
    "${logs[@]}" 2>/dev/null || true # no pod yet, or it was taken away: look again
    sleep "$POLL"
  done
}

train() {
  [ -n "$type" ] || die "--type is missing, e.g. --type v5e-8"
  case $(workdir_of "$@") in
    gs://*) ;;
    *) die "a pod's disk vanishes with it; give -- --workdir gs://BUCKET/run" ;;
  esac
  need kubectl "see kubernetes.io/docs/tasks/tools"
  if [ -n "$DRY_RUN" ]; then
    apply "$@"
    follow
    return
  fi
  manifest "$@" >/dev/null
  case $(ask_status) in
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
      kubectl logs --tail=50 --selector="job-name=$name,batch.kubernetes.io/job-completion-index=0" || true
      kubectl describe job "$name" || true
      say "job $name failed; the end of its log and the reason stand above"
      exit 1
      ;;
  esac
}

cloud() { run gcloud container clusters "$@" --region="$region" ${project:+--project="$project"}; }
there() { cloud describe "$cluster" --format='value(status)' >/dev/null 2>&1; }
check_cluster() {
  [ -n "$cluster" ] && [ -n "$region" ] || die "which cluster? Give --cluster NAME --region REGION"
  need gcloud "see cloud.google.com/sdk/docs/install"
}

case $command in
  create)
    check_cluster
    if [ -z "$DRY_RUN" ] && there; then
      say "cluster $cluster is there"
    else
      cloud create-auto "$cluster" || there || die "cluster $cluster could not be created; see above"
    fi
    try cloud get-credentials "$cluster"
    ;;
  run | resume) train "$@" ;;
  logs) follow ;;
  delete)
    remove
    if [ -n "$cluster" ]; then
      check_cluster
      if [ -n "$DRY_RUN" ] || there; then try cloud delete "$cluster" --quiet; else say "there is no cluster $cluster (any more)"; fi
    fi
    ;;
  -h | --help | help) manual "$0" ;;
  *) die "unknown command $command; one of create, run, resume, logs, delete" ;;
esac
