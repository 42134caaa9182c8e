"""What layers compute in the Keras that saved a model, where Keras 3 computes something else."""
