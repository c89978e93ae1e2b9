"""What lives on disk and in the background: cache, jobs, drafts, ledger."""
