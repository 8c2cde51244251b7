//! refusals.jsonl and quarantine: nothing is ever lost to a rule.
