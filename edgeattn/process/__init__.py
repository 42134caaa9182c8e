"""Worker processes: native code crashes, and untrusted files are opened where that harms nobody."""
