"""LiteLLM's proxy with its own content filter, as targets of the gateway bench.

Law: as it is installed and documented: one worker, its default server and client, `litellm_content_filter` on by default before the call
and after it, words that block. What asks for more work is off: a key, telemetry, price lists and notices from the network, its log.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_ENVIRONMENT = {
    "LITELLM_TELEMETRY": "False", "LITELLM_LOG": "ERROR",
    # Without it a .env of the folder is read.
    "LITELLM_MODE": "PRODUCTION",
    # No master key, as Sluice has no apps in this bench: it refuses to start otherwise.
    "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",
    **{
        f"LITELLM_LOCAL_{what}": "True"
        for what in ("MODEL_COST_MAP", "ANTHROPIC_BETA_HEADERS", "BLOG_POSTS", "POLICY_TEMPLATES", "AUTOROUTER_PRESETS")
    },
    "NO_PROXY": "127.0.0.1",
}  # fmt: skip
WORDS = {"LiteLLM": 0, "LiteLLM 20 words": 20, "LiteLLM 1000 words": 1000}
"""Target -> words of its filter (0: no filter)."""
YARD = "LiteLLM 20 words"
PHASES = {"LiteLLM 1000 words": ("plain1", "plain16", "burst1", "paced1")}
"""Target -> the phases that it is measured in, where not all. It looks for each word by a regular expression of its own, and again at every
delta; a thousand are more than Python keeps compiled, and a stream takes seconds of CPU. With more at once replies would only run into
the load's time limit."""


def version(environment: Path) -> str:
    """Of the litellm that is installed there. Raises OSError or CalledProcessError where none is."""
    asked = "import importlib.metadata as m; print(m.version('litellm'))"
    told = subprocess.run([environment / "bin" / "python", "-c", asked], capture_output=True, text=True, check=True)
    return told.stdout.strip()


def command(
    environment: Path, folder: Path, port: int, backend_port: int, words: Sequence[str]
) -> tuple[str, dict[str, str]]:
    """(command line, environment) of a proxy on `port` that screens for `words`; its files go to `folder`."""
    folder.mkdir()
    upstream = {"model": "openai/mock", "api_base": f"http://127.0.0.1:{backend_port}/v1", "api_key": "none"}
    config: dict[str, Any] = {
        "model_list": [{"model_name": "mock", "litellm_params": upstream}],
        "litellm_settings": {"telemetry": False, "num_retries": 0},
    }
    if words:
        listed = folder / "words.yaml"
        listed.write_text(
            json.dumps({"blocked_words": [{"keyword": word, "action": "BLOCK"} for word in words]}), "utf-8"
        )
        config["guardrails"] = [{
            "guardrail_name": "words",
            "litellm_params": {
                "guardrail": "litellm_content_filter", "mode": ["pre_call", "post_call"], "default_on": True,
                "blocked_words_file": str(listed),
            },
        }]  # fmt: skip
    file = folder / "config.yaml"
    file.write_text(json.dumps(config), "utf-8")  # JSON is YAML as well
    run = f"{environment / 'bin' / 'litellm'} --config {file} --host 127.0.0.1 --port {port} --num_workers 1"
    return run, _ENVIRONMENT
