#!/bin/bash
# skipvision-drain SECONDS: before a Pod of workers ends, tell Ray that its node goes, and wait for so long. Replicas
# there are asked nothing more and finish what they have; workers of a job finish shards or hand them back.
set -u
seconds=${1:?how many seconds}
[[ $seconds =~ ^[0-9]+$ ]] || { echo "skipvision-drain: $seconds is no number of seconds" >&2; exit 2; }
# The command is not part of Ray's public interface. Where it fails, waiting still lets what was begun be finished, while
# Kubernetes sends no more requests to a Pod that ends.
ray drain-node --reason DRAIN_NODE_REASON_PREEMPTION --reason-message "the Pod ends" \
  --deadline-remaining-seconds "$seconds" >&2 || echo "skipvision-drain: Ray did not take the node out" >&2
exec sleep "$seconds"
