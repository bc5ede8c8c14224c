"""The hook itself; ``GpuShim.install`` puts an interpreter line above it. Standard library only.

runc calls it as ``nvidia-container-runtime-hook prestart`` with the container's OCI state on
standard input. Files it needs lie beside it; nothing comes from the environment.
"""

import json
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent


def main() -> int:
    """Record the request, refuse unknown devices, put nvidia-smi into the container's root."""
    state = json.load(sys.stdin)
    bundle = Path(state["bundle"])
    config = json.loads((bundle / "config.json").read_text())
    variables = dict(entry.partition("=")[::2] for entry in config["process"]["env"])
    asked = variables.get("NVIDIA_VISIBLE_DEVICES")
    record = {
        "container": state["id"],
        "visible_devices": asked,
        "driver_capabilities": variables.get("NVIDIA_DRIVER_CAPABILITIES"),
    }
    with (HERE / "requests.jsonl").open("a") as log:
        log.write(json.dumps(record) + "\n")
    if asked in (None, "", "void", "none"):
        return 0
    known = [
        {"index": number, **gpu}
        for number, gpu in enumerate(json.loads((HERE / "gpus.json").read_text()))
    ]
    names = [str(gpu[key]) for gpu in known for key in ("index", "uuid")]
    wanted = names if asked == "all" else asked.split(",")
    for name in wanted:
        if name not in names:
            sys.stderr.write(f"nvidia-container-cli: device error: {name}: unknown device\n")
            return 1
    chosen = [gpu for gpu in known if str(gpu["index"]) in wanted or gpu["uuid"] in wanted]
    target = Path(bundle, config["root"]["path"]) / "usr/bin/nvidia-smi"
    target.parent.mkdir(parents=True, exist_ok=True)
    rows = "".join(
        f"{n}|{gpu['uuid']}|{gpu['name']}|{gpu['memory_mib']}\n" for n, gpu in enumerate(chosen)
    )
    target.write_text((HERE / "nvidia-smi.sh").read_text().replace("@GPUS@\n", rows))
    target.chmod(0o755)
    return 0


if __name__ == "__main__":
    sys.exit(main())
