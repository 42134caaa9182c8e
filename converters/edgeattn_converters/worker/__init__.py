"""The worker process that imports TensorFlow: its client, and the tasks it runs."""
