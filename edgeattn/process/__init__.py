"""Worker processes: they isolate native code that crashes, and files that are not trusted."""
