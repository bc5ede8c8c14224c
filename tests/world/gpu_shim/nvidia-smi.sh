#!/bin/sh
# Stand-in for nvidia-smi. The hook puts the GPUs that the container was given into the list below.
# Knows: nvidia-smi -L; nvidia-smi --query-gpu=FIELD,... --format=csv[,noheader][,nounits]
set -eu
list_gpus() {
    cat <<'GPUS'
@GPUS@
GPUS
}
fields= format=csv
for argument in "$@"; do
    case "$argument" in
    -L | --list-gpus)
        list_gpus | while IFS='|' read -r index uuid name memory; do
            echo "GPU $index: $name (UUID: $uuid)"
        done
        exit 0
        ;;
    --query-gpu=*) fields=${argument#--query-gpu=} ;;
    --format=*) format=${argument#--format=} ;;
    *)
        echo "stand-in nvidia-smi does not know $argument" >&2
        exit 2
        ;;
    esac
done
[ -n "$fields" ] || fields=index,name,uuid,memory.total
unit=' MiB'
case ",$format," in *,nounits,*) unit= ;; esac
case ",$format," in *,noheader,*) ;; *) echo "$fields" | sed 's/,/, /g' ;; esac
list_gpus | while IFS='|' read -r index uuid name memory; do
    line=
    for field in $(echo "$fields" | tr ',' ' '); do
        case "$field" in
        index) value=$index ;;
        uuid | gpu_uuid) value=$uuid ;;
        name | gpu_name) value=$name ;;
        memory.total | memory.free) value=$memory$unit ;;
        memory.used) value=0$unit ;;
        utilization.gpu) value="0${unit:+ %}" ;;
        driver_version) value=560.35.03 ;;
        compute_cap) value=8.6 ;;
        *) value='[Not Supported]' ;;
        esac
        line="${line:+$line, }$value"
    done
    echo "$line"
done
