"""Latency, load time and memory of artifacts, cold, warm and under sustained load."""
