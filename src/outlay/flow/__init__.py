"""May it be spent: budgets, windows, authorize, lifecycle (pure); ledger and gateway (the shell around them)."""
