#!/usr/bin/env bash
# Source this before `ray start`, on every node: `. environment.sh aws|gcp|slurm`.
# Ray's processes and the workers inherit what stands here; nothing else hands it to them.

# Who has no token gets nothing: not the dashboard, not the jobs API, no node may join.
export RAY_AUTH_MODE=token
export RAY_USAGE_STATS_ENABLED=0

# `ray job stop` waits this long between SIGTERM and SIGKILL (Ray: 3 s), so that the run is saved.
export RAY_JOB_STOP_WAIT_TIME_S=180
# SIGTERM to `ray start --block` drains the node for this long before its processes end.
export RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S=90

export DS_BUILD_OPS=0 WDS_SECURE=1

# Gradients go over the interface of the default route: without it gloo may take loopback from the
# host's name, and NCCL a bridge of Docker's.
interface=$(ip -o route show default | sed -n 's/.* dev \([^ ]*\).*/\1/p' | head -n 1)
if [ -n "$interface" ]; then
  export GLOO_SOCKET_IFNAME=$interface NCCL_SOCKET_IFNAME=$interface
fi
export NCCL_DEBUG=${NCCL_DEBUG:-WARN}

# A job's driver runs on the head; where that has no GPU, this is what resources.device=auto and
# preset=auto go by.
case "${1:-}" in
  aws | gcp) export VMCMC_DEVICE=${VMCMC_DEVICE:-cuda} ;;
esac

case "${1:-}" in
  aws)
    # EFA where the instance has it (p4d, p5): NCCL reaches it by the OFI plugin of the AMI.
    if compgen -G '/sys/class/infiniband/*' > /dev/null && [ -d /opt/amazon/efa ]; then
      export FI_PROVIDER=efa FI_EFA_USE_DEVICE_RDMA=1 FI_EFA_FORK_SAFE=1
      export LD_LIBRARY_PATH="/opt/amazon/ofi-nccl/lib:/opt/amazon/efa/lib:${LD_LIBRARY_PATH:-}"
    fi
    ;;
  gcp)
    # One TCP stream does not fill a gVNIC of 100 Gbit/s.
    export NCCL_SOCKET_NTHREADS=4 NCCL_NSOCKS_PERTHREAD=4
    # The bucket by its S3 interface; keys (HMAC) from ~/.aws/credentials. Cloud Storage knows
    # none of the checksums that botocore adds by itself.
    export AWS_ENDPOINT_URL=https://storage.googleapis.com AWS_DEFAULT_REGION=auto
    export AWS_REQUEST_CHECKSUM_CALCULATION=when_required
    export AWS_RESPONSE_CHECKSUM_VALIDATION=when_required
    ;;
  slurm) ;;
  *)
    echo "usage: . environment.sh aws|gcp|slurm" >&2
    # shellcheck disable=SC2317  # exit is for who runs it instead of sourcing it
    return 2 2> /dev/null || exit 2
    ;;
esac
