#!/usr/bin/env bash
# The instance's own NVMe disks as one folder, for data.block_cache: scratch.sh [/scratch]
# Disks that are lost with the instance, so the cache is all that may lie there. Run again, it
# changes nothing. Without such disks the folder lies on the boot disk.
set -euo pipefail

folder=${1:-/scratch}
by_id=${DISKS_BY_ID:-/dev/disk/by-id}
me=$(id -un)

mounted() { findmnt --noheadings --output SOURCE --mountpoint "$1"; }

if mounted "$folder" > /dev/null || [ -L "$folder" ]; then
  echo "$folder is there already"
  exit 0
fi

# AWS' Deep Learning AMIs have mounted them themselves.
if mounted /opt/dlami/nvme > /dev/null; then
  sudo ln -sfn /opt/dlami/nvme "$folder"
  sudo chown "$me" /opt/dlami/nvme
  echo "$folder: the disks that the AMI mounted"
  exit 0
fi

disks=()
for disk in "$by_id"/nvme-Amazon_EC2_NVMe_Instance_Storage_* "$by_id"/google-local-nvme-ssd-*; do
  case "$disk" in
    *\** | *-part[0-9]* | *_[0-9]) continue ;; # no such disk; a partition; a name's namespace twin
  esac
  disks+=("$(readlink -f "$disk")")
done

sudo mkdir -p "$folder"
if [ ${#disks[@]} -eq 0 ]; then
  sudo chown "$me" "$folder"
  echo "$folder: no NVMe disks of the instance, so it is on the boot disk"
  exit 0
fi
device=${disks[0]}
if [ ${#disks[@]} -gt 1 ]; then
  device=/dev/md0
  sudo mdadm --create "$device" --level=0 --raid-devices=${#disks[@]} --run "${disks[@]}"
fi
sudo mkfs.ext4 -q -E nodiscard "$device"
sudo mount -o noatime "$device" "$folder"
sudo chown "$me" "$folder"
echo "$folder: ${#disks[@]} NVMe disks"
