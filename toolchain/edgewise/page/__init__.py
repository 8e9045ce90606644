"""The report: one self-contained HTML page about bundles. No script, no network; a content policy in the page holds that."""
