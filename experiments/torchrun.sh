#!/bin/bash
# One training run under torchrun, with a process for each GPU. Arguments are those of `lightning fit`:
#   experiments/torchrun.sh --config experiments/agw_sysu.yaml --data.dataset.root /data/SYSU-MM01
# On several machines run it on each, with the first one's name and a free port of it:
#   NODES=2 RENDEZVOUS=first-machine:29500 experiments/torchrun.sh --config experiments/agw_sysu.yaml
# Without GPUs, in two processes:
#   PROCESSES=2 ACCELERATOR=cpu experiments/torchrun.sh --config experiments/quickstart.yaml

set -euo pipefail
nodes=${NODES:-1}
processes=${PROCESSES:-$(nvidia-smi --list-gpus | wc -l)}
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}

exec torchrun --nnodes "$nodes" --nproc-per-node "$processes" \
  --rdzv-backend c10d --rdzv-endpoint "${RENDEZVOUS:-localhost:0}" \
  -m vireid_lightning fit "$@" --config experiments/overlays/ddp.yaml \
  --trainer.accelerator "${ACCELERATOR:-gpu}" --trainer.devices "$processes" --trainer.num_nodes "$nodes"
