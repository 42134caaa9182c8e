"""Models of the user's code, run with tf_keras in a process of its own."""
