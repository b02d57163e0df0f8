"""Models that LiteLLM keeps in its database, as far as they can be read: it encrypts what they lead to."""

from collections.abc import Iterator, Mapping
from typing import Any

from outlay.app.importing import litellm_tables as tables
from outlay.app.importing.deployments import Deployment
from outlay.app.importing.litellm_tables import Tables, json_object
from outlay.app.importing.plan import Plan


def database_deployments(found: Tables, plan: Plan) -> Iterator[Deployment]:
    """Models that LiteLLM keeps in its database; those whose parameters are encrypted are listed."""
    for row in sorted(
        found[tables.MODELS], key=lambda item: (str(item["model_name"]), str(item["model_id"]))
    ):
        params = json_object(row.get("litellm_params"))
        where = f"model {row['model_name']} ({row['model_id']})"
        if row.get("blocked"):
            plan.leave(where, "blocked", "a blocked deployment is left out", "none is needed")
            continue
        model = params.get("model")
        if not isinstance(model, str) or _is_encrypted(model):
            plan.leave(
                f"{where}: litellm_params",
                "(encrypted)",
                "LiteLLM encrypts a model's parameters with its salt key, and Outlay does not read them",
                "write the model into a config.yaml (LiteLLM shows it at /model/info) and import that with --config",
            )
            continue
        clear = {
            name: f"os.environ/{_variable(name, params)}" if _is_secret(name, value) else value
            for name, value in params.items()
        }
        yield Deployment(str(row["model_name"]), clear, json_object(row.get("model_info")), where)


def _is_encrypted(text: str) -> bool:
    """Whether a text looks like what LiteLLM's `encrypt_value` gives: 40 bytes or more as base64, no `provider/`."""
    if text.startswith("v2:gcm:"):
        return True
    return len(text) >= 54 and "/" not in text and all(c.isalnum() or c in "-_=" for c in text)


def _is_secret(name: str, value: object) -> bool:
    return isinstance(value, str) and (_is_encrypted(value) or name.endswith(("_key", "_token", "_secret")))


def _variable(name: str, params: Mapping[str, Any]) -> str:
    prefix = str(params.get("custom_llm_provider") or str(params.get("model")).partition("/")[0])
    return f"{prefix}_{name}".upper().replace("-", "_").replace(".", "_")
