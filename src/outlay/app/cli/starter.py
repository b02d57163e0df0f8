"""The starter outlay.yaml. It passes `outlay config check` with no environment, and holds no well-known secret."""

from typing import Final

_TEXT: Final = """\
# Outlay: what may be spent on AI, by whom. Check with `outlay config check`, run with `outlay up`.
# Unknown keys are errors. ${NAME} takes a value from the environment, ${NAME:-default} with a default.
# This file holds secrets: before you share it, replace them by ${NAME}.
version: 1
org: default                # organisation of keys that name none
ledger: outlay.db           # SQLite file, relative to this file, or a postgresql:// address

gateway:
  host: 127.0.0.1
  port: 4100
  # sync: full              # each hold waits for the disk: survives a host crash, costs latency
  # mode: shadow            # decide and record, never refuse: to compare before you switch
  # default_max_output_tokens: 4096   # put into requests that state no output limit
  # clamp: when_unset       # lower that default when a budget is nearly spent: never, when_unset, always
  # disclose: own           # whose amounts a refusal shows to the caller: own, all
  # raise_url: https://wiki.example.com/budget-raise?request={request_id}   # absent: the console's approvals

console:
  host: 127.0.0.1
  port: 4101
  admin_token: @TOKEN@

# Where calls go. openai, anthropic, google, cohere and bedrock know their address; others state dialect and base_url.
providers:
  - name: openai
    api_key: ${OPENAI_API_KEY:-}
  - name: anthropic
    api_key: ${ANTHROPIC_API_KEY:-}
  # - {name: google, api_key: "${GEMINI_API_KEY:-}"}
  # - {name: bedrock, aws_region: us-east-1}   # signed with AWS's usual credentials
  # - name: local           # vLLM, SGLang, llama.cpp: cancelling stops them, so what was cut is counted
  #   self_hosted: true
  #   base_url: http://127.0.0.1:8000/v1
  #   models: ["llama-*"]

# Names that clients may use for a provider's model.
# models:
#   - {name: fast, provider: openai, model: gpt-5-mini}
#   - name: smart           # the next target is asked when one fails; each attempt is held and billed
#     targets: [{provider: anthropic, model: claude-sonnet-4-5}, {provider: openai, model: gpt-5}]

# Virtual keys: who a caller is. `outlay key create` makes more; only hashes are stored.
keys:
  - name: dev
    secret: @SECRET@
    team: default

# Every budget that applies must cover a call's worst case before it leaves. Made outside this file:
# `outlay budget set`. Scope: dimension (team, user, key, agent, run, model, ...) or tag.NAME -> value, prefix* or *.
budgets:
  - name: everything
    scope: {}
    limit_usd: 100
    window: month           # day, week, month, quarter, year, lifetime, or rolling: 90s, 5m, 24h, 7d
    timezone: UTC
  - name: each-key
    scope: {key: "*"}       # one account for every key
    limit_usd: 20
    window: 24h
  # - {name: each-run, scope: {run: "*"}, limit_usd: 2, window: lifetime}
  # - {name: watch-search, scope: {team: search}, limit_usd: 50, window: week, soft: true}

# Which models a scope may call.
# access:
#   - {scope: {environment: ci}, allow: ["gpt-5-mini", "claude-haiku-*"]}

# Prices beside the price feed. A model without a price is refused, unless a ceiling covers it.
# prices:
#   - {kind: discount, name: contract-2026, provider: openai, multiplier: 0.85, valid_from: 2026-01-01}
#   - {kind: custom, provider: openai, model: my-fine-tune, usd_per_mtok: {input: 3, output: 12}}
#   - {kind: self_hosted, provider: local, model: llama-3, usd_per_hour: 1.80, tokens_per_second: 900}
#   - {kind: ceiling, usd_per_mtok: {input: 30, output: 120}, context_window: 200000}
"""


def starter_text(admin_token: str, key_secret: str) -> str:
    """The file with these secrets in it."""
    return _TEXT.replace("@TOKEN@", f'"{admin_token}"').replace("@SECRET@", key_secret)
